"""Baking on the train page."""

STRINGS = {
    "bake.title": ("Bake a prompt into an adapter", "将提示烘焙进适配器"),
    "bake.about": (
        (
            "What the live policy answers to the training cases under the long prompt is learnt by SFT under the short one; then both are "
            "tested on the suite's test cases. Nothing goes live without you."
        ),
        "线上策略在长提示下对训练用例的回答,由 SFT 在短提示下学习;随后在测试集的测试用例上比较两者。未经您同意,不会上线任何模型。",
    ),
    "bake.suite": ("Suite", "测试集"),
    "bake.long": ("Long prompt", "长提示"),
    "bake.short": ("Short prompt", "短提示"),
    "bake.most": ("Most tokens", "最多词元"),
    "bake.passed": ("Learn only answers that pass", "只学习通过检查的回答"),
    "bake.start": ("Bake", "开始烘焙"),
    "bake.stop": ("Stop", "停止"),
    "bake.choose": ("Choose a suite and two templates first.", "请先选择测试集和两个模板。"),
    "bake.started": ("Bake {id} has begun.", "烘焙 {id} 已开始。"),
    "bake.stop_one": ("Stop bake {id}", "停止烘焙 {id}"),
    "bake.stopped": ("Bake {id} goes no further.", "烘焙 {id} 已停止。"),
    "bake.under_way": ("Bakes under way", "进行中的烘焙"),
    "bake.waits_for": ("Waits for", "正在等待"),
    "bake.moves": ("nothing: it goes on by itself", "无:正在自动进行"),
    "bake.go_on": (
        "Go on with run {id} on the Test page; the bake follows by itself.",
        "请在“测试”页继续运行 {id},烘焙会随之自动继续。",
    ),
    "bake.state.waiting": ("waiting", "等待中"),
    "bake.log": ("Bakes", "烘焙记录"),
    "bake.none": ("No prompt was baked yet.", "还没有烘焙过提示。"),
    "bake.column.id": ("Bake", "烘焙"),
    "bake.column.what": ("Prompts", "提示"),
    "bake.column.state": ("State", "状态"),
    "bake.column.answers": ("Answers to learn", "待学习的回答"),
    "bake.column.job": ("Job", "任务"),
    "bake.column.test": ("Tested", "测试"),
    "bake.column.started": ("Started", "开始时间"),
    "bake.state.asking": ("answering", "回答中"),
    "bake.state.training": ("training", "训练中"),
    "bake.state.testing": ("testing", "测试中"),
    "bake.state.done": ("done", "完成"),
    "bake.state.failed": ("failed", "失败"),
    "bake.state.stopped": ("stopped", "已停止"),
    "bake.ladder": ("The ladder: what each way reaches", "阶梯:各种做法的效果"),
    "bake.ladder_hint": (
        "on {n|test case|test cases} of the newest bake that is done",
        "最近完成的烘焙,{n} 个测试用例",
    ),
    "bake.costs": (" · {tokens|token|tokens} · {seconds} s", " · {tokens} 词元 · {seconds} 秒"),
    "bake.way.zero": ("zero-shot", "零样本"),
    "bake.way.few": ("few-shot, {k}", "少样本,{k} 个"),
    "bake.way.baked": ("baked", "烘焙"),
    "bake.way.calibrated": ("calibrated: {method}", "校准:{method}"),
    "bake.way.probe": ("linear probe on {n|case|cases}", "线性探针,{n} 个用例"),
    "bake.saved": (
        (
            "Baking saves {saved} of {of} prompt tokens; of {n|case|cases} {gained} are gained and {lost} lost against the long prompt (exact "
            "McNemar, p = {p})."
        ),
        "烘焙节省 {of} 个提示词元中的 {saved} 个;与长提示相比,{n} 个用例中转为通过 {gained} 个,转为失败 {lost} 个(精确 McNemar 检验,p = {p})。",
    ),
    "problem.bake_templates": (
        "Choose two different templates of the suite's project.",
        "请选择测试集所属项目中的两个不同模板。",
    ),
    "problem.bake_graders": (
        "A check of this suite asks a model. Choose a suite whose checks are deterministic.",
        "此测试集中有需要询问模型的检查,请选择检查均为确定性的测试集。",
    ),
    "problem.bake_cases": (
        "A bake needs {least} cases to learn from and {tested} test cases; this suite has {learnt} and {found}.",
        "烘焙需要 {least} 个训练用例和 {tested} 个测试用例;此测试集有 {learnt} 个和 {found} 个。",
    ),
}
