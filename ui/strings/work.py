"""Errors of building, comparing, training and promoting, by their code. {names} are the error's values."""

STRINGS = {
    "problem.empty_demonstration": ("A demonstration needs both an input and an output.", "示例需要同时有输入和输出。"),
    "problem.empty_case": ("A case needs at least one value that is not empty.", "用例至少需要一个非空的值。"),
    "problem.no_template_name": ("A template needs a name.", "模板需要一个名称。"),
    "problem.sampling_range": (
        "The {name} must be between {low} and {high}, not {value}.",
        "{name} 必须在 {low} 到 {high} 之间,当前为 {value}。",
    ),
    "problem.different_cases": ("Only answers to the same case can be compared.", "只能比较同一用例的回答。"),
    "problem.all_the_same": (
        "All wrote the same: there is nothing to choose between. Use another seed.",
        "所有回答文本相同,没有可供选择的差别。请换一个种子。",
    ),
    "problem.many_cases": (
        "Ask for 1 to {most} cases at a time, not {count}.",
        "每次可请求 1 到 {most} 个用例,当前为 {count}。",
    ),
    "problem.no_cases": (
        "This template has no cases. Add some on the Build page.",
        "此模板没有用例,请在构建页面添加。",
    ),
    "problem.few_together": (
        (
            "How far people can be relied on shows in pairs that several of them judged, or in gold. {minimum} are needed; there are "
            "{count}. Ask for more judgements per comparison, or set 'reliability' to off."
        ),
        "人员可靠度须由多人评判过的成对比较或金标得出。需要 {minimum} 个;现有 {count} 个。请提高每个比较的评判数,或将“人员可靠度”设为 off。",
    ),
    "problem.few_judgements": (
        "A reward model needs {minimum} judgements; there are {count}. Label more first.",
        "训练奖励模型需要 {minimum} 个评判,目前有 {count} 个。请先继续标注。",
    ),
    "problem.few_pairs": (
        "DPO needs {minimum} judged pairs; there are {count}. Label more first.",
        "DPO 需要 {minimum} 个已评判的答案对,目前有 {count} 个。请先继续标注。",
    ),
    "problem.few_answers": (
        (
            "SFT needs {minimum} answers to learn from: demonstrations, edited or preferred ones; there are at most {count}. "
            "Label more, or write demonstrations."
        ),
        "SFT 需要 {minimum} 个可学习的回答(示例、修改过的或胜出的回答),目前最多 {count} 个。请继续标注或编写示例。",
    ),
    "problem.few_of_a_kind": (
        (
            "KTO needs {minimum} desirable and {minimum} undesirable answers; there are at most {desirable} and {undesirable}. "
            "Label more first."
        ),
        "KTO 需要可取与不可取的回答各 {minimum} 个,目前最多分别为 {desirable} 个和 {undesirable} 个。请先继续标注。",
    ),
    "problem.few_texts": (
        (
            "Pretraining needs {minimum} texts in the split 'train'; there are {count}. "
            "Import some: python app.py import corpus.txt --format text --project NAME."
        ),
        "继续预训练需要“train”划分中有 {minimum} 篇文本,目前有 {count} 篇。请导入:python app.py import corpus.txt --format text --project NAME。",
    ),
    "problem.no_reward_model": (
        "{method} needs a reward model. Train one from the judgements first.",
        "{method} 需要奖励模型,请先用评判训练一个。",
    ),
    "problem.other_base": (
        "{name} was trained on the base {base}; {served} is served now. Train a reward model on it.",
        "{name} 是在底座 {base} 上训练的,现在使用的是 {served}。请在其上训练奖励模型。",
    ),
    "problem.no_prompts": (
        "{method} needs prompts: send comparisons to labelling first.",
        "{method} 需要提示:请先将比较送去标注。",
    ),
    "problem.weak_reward_model": (
        (
            "The reward model is not shown to be better than guessing, so a policy that follows it would chase noise. "
            "Label more and train it again, or give a reason to go on."
        ),
        "奖励模型尚未证明优于猜测,依据它训练的策略只会追逐噪声。请继续标注并重新训练,或填写继续的理由。",
    ),
    "problem.no_base": (
        "There is no base model yet. Start the app once, so that it registers its base.",
        "还没有基座模型。请先启动一次应用以登记基座。",
    ),
    "problem.imported_model": (
        "This model stands for imported answers or for a remote engine; there is nothing here to put live.",
        "该模型代表导入的回答或远程引擎,此处没有可上线的内容。",
    ),
    "problem.live_already": ("This model is live already.", "该模型已上线。"),
    "problem.not_live": ("Only the live model can be rolled back.", "只有已上线的模型可以回滚。"),
    "problem.no_former": ("No model was live before this one.", "此前没有上线的模型。"),
    "problem.not_whole": ("{name} is not whole: {why}", "{name} 不完整:{why}"),
    "problem.other_digest": (
        "{name} is not the model that was registered: its manifest has another digest.",
        "{name} 不是登记时的模型:清单摘要不同。",
    ),
}
