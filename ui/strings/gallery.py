"""The gallery page."""

STRINGS = {
    "nav.gallery": ("Gallery", "场景库"),
    "gallery.intro": (
        (
            "Each scenario brings template versions, demonstrations, cases with expected answers, a suite, a label form and a "
            "guideline. All texts are invented. They show how far a model gets, and the small starter model gets most of them wrong."
        ),
        (
            "每个场景含模板版本、示例、带期望回答的用例、测试集、标注表单和指南,文字均为虚构。"
            "场景用来看出模型能做到哪一步;自带的小模型在多数场景下都会答错。"
        ),
    ),
    "gallery.language": ("Language", "语言"),
    "gallery.language.all": ("both", "全部"),
    "gallery.language.en": ("English", "English"),
    "gallery.language.zh": ("中文", "中文"),
    "gallery.area.service": ("Customer service", "客户服务"),
    "gallery.area.finance": ("Finance", "金融"),
    "gallery.area.medicine": ("Medicine", "医疗"),
    "gallery.area.sentiment": ("Sentiment", "情感"),
    "gallery.area.reading": ("Reading", "阅读理解"),
    "gallery.area.inference": ("Inference and meaning", "推断与词义"),
    "gallery.inside": (
        "{cases|case|cases} · {demonstrations|demonstration|demonstrations}",
        "{cases} 个用例 · {demonstrations} 个示例",
    ),
    "gallery.choose": ("Choose a scenario to see what is inside.", "选择一个场景查看内容。"),
    "gallery.cases": ("Cases", "用例"),
    "gallery.splits": ("{train} train, {val} val, {test} test", "训练 {train},验证 {val},测试 {test}"),
    "gallery.hard": ("of them hard: {n}", "其中难例 {n} 个"),
    "gallery.demonstrations": ("Demonstrations", "示例"),
    "gallery.versions": ("Template versions", "模板版本"),
    "gallery.checks": ("Checks", "检查"),
    "gallery.template": ("Template, version {n}: {note}", "模板第 {n} 版:{note}"),
    "gallery.role.system": ("system", "系统"),
    "gallery.role.user": ("user", "用户"),
    "gallery.role.assistant": ("assistant", "助手"),
    "gallery.a_case": ("A case", "一个用例"),
    "gallery.expected": ("expected answer", "期望回答"),
    "gallery.guideline": ("Guideline", "指南"),
    "gallery.add": ("Add to this project", "加入此项目"),
    "gallery.name": ("Name of a new project", "新项目名称"),
    "gallery.make": ("New project with it", "用它新建项目"),
    "gallery.no_choice": ("Choose a scenario first.", "请先选择一个场景。"),
    "gallery.added": (
        "{title} is in {project}: {templates|template version|template versions}, {demonstrations|demonstration|demonstrations} and {cases|case|cases} are new.",
        "{title} 已加入 {project}:新增 {templates} 个模板版本、{demonstrations} 个示例、{cases} 个用例。",
    ),
    "gallery.there": (
        "{title} is in {project} already; nothing was added.",
        "{project} 中已有 {title},未添加任何内容。",
    ),
    "gallery.next": ("Go on", "接下来"),
    "gallery.to_build": ("see and change the template", "查看和修改模板"),
    "gallery.to_test": ("run its suite", "运行测试集"),
    "gallery.to_test_json": (
        "run its suite; answers are JSON, so let them have 200 tokens",
        "运行测试集(回答是 JSON,最长回答请设为 200 词元)",
    ),
    "gallery.to_label": ("judge answers", "评判回答"),
    "problem.no_scenario": (
        "The gallery has no scenario “{scenario}” in “{language}”. Choose one of those shown.",
        "场景库中没有“{language}”的“{scenario}”。请从列出的场景中选择。",
    ),
    "problem.project_name": (
        "A project needs a name of at most 120 characters.",
        "项目需要一个不超过 120 个字符的名称。",
    ),
    "problem.project_taken": (
        "There is a project “{name}” already. Choose another name, or add the scenario to it.",
        "已有名为“{name}”的项目。请换一个名称,或把场景加入该项目。",
    ),
}
