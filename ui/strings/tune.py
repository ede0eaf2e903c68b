"""The tune page."""

STRINGS = {
    "nav.tune": ("Tune", "调优"),
    "tune.open": ("Measure it", "测量"),
    "tune.template": ("Template", "模板"),
    "tune.model": ("Model", "模型"),
    "tune.most": ("Cases to search on", "搜索用例数"),
    "tune.seed": ("Seed", "种子"),
    "tune.seeds": ("Draws of each", "每档抽取次数"),
    "tune.about": (
        (
            "What searches sees val cases first, then train cases; what is claimed rests on test cases alone. No demonstration that is "
            "(nearly) one of these cases is shown."
        ),
        "搜索先看验证用例,再看训练用例;结论只依据测试用例。与这些用例(几乎)相同的示例不会展示。",
    ),
    "tune.tab.order": ("Order", "顺序"),
    "tune.tab.count": ("Number of demonstrations (k)", "示例数量(k)"),
    "tune.tab.calibration": ("Calibration", "校准"),
    "tune.tab.next": ("What to label next", "下一步标注什么"),
    "tune.start.order": ("Measure up to 24 orders", "测量至多 24 种顺序"),
    "tune.start.count": ("Measure 0 to 32 demonstrations", "测量 0–32 个示例"),
    "tune.start.calibration": ("Measure and calibrate", "测量并校准"),
    "tune.stop": ("Stop", "停止"),
    "tune.go_on": ("Go on", "继续"),
    "tune.choose": ("Choose a template and a model.", "请选择模板和模型。"),
    "tune.started": ("Measurement {id} was started: {n} parts.", "测量 {id} 已启动,共 {n} 部分。"),
    "tune.progress": ("{done} of {total} parts", "已完成 {done} / {total} 部分"),
    "tune.left": ("{time} left", "约剩 {time}"),
    "tune.state.running": ("running", "运行中"),
    "tune.state.stopped": ("stopped", "已停止"),
    "tune.state.done": ("done", "完成"),
    "tune.earlier": ("Measurements", "测量记录"),
    "tune.none": ("Nothing has been measured of this version yet.", "此版本尚无测量。"),
    "tune.which": ("Measurement", "测量"),
    "tune.when": ("Started", "开始"),
    "tune.parts": ("Parts", "部分"),
    "tune.state": ("State", "状态"),
    "tune.rests_on": (
        (
            "Searched on {search|case|cases} ({val} val, {train} train); claimed on {test|test case|test cases}. Test cases of this template have been "
            "looked at {looks|time|times}. {left_out|demonstration was|demonstrations were} left out for being (nearly) one of the cases."
        ),
        (
            "在 {search} 个用例上搜索(验证 {val},训练 {train});在 {test} 个测试用例上下结论。此模板的测试用例已被查看 {looks} 次。"
            "有 {left_out} 个示例因与用例(几乎)相同而未用。"
        ),
    ),
    "tune.no_test": (
        "There is no test case with one of the labels: nothing can be claimed of what was chosen here.",
        "没有带标签的测试用例:无法对所选结果下结论。",
    ),
    "tune.straddles": (
        "A tokenizer would join these labels with the end of the prompt; they are scored by their own tokens: {labels}",
        "分词器会把这些标签与提示结尾合并,因此按其自身词元计分:{labels}",
    ),
    "tune.spread": ("Spread over orders", "顺序带来的差异"),
    "tune.spread_hint": ("{low} to {high}, {n} orders", "{low} 至 {high},共 {n} 种顺序"),
    "tune.own": ("Own order", "当前顺序"),
    "tune.mean": ("Mean of all orders", "各顺序均值"),
    "tune.mean_hint": ("what an order by chance gives", "随机顺序的期望"),
    "tune.spread_warning": (
        (
            "Order alone moves accuracy by {points} points. Two templates that differ by less than that are not told apart by one order "
            "of each."
        ),
        "仅顺序就使准确率变动 {points} 个百分点。差距小于此的两个模板,各用一种顺序无法分出高下。",
    ),
    "tune.one_label": (
        "In every order this model says one label only. See Calibration for its lean, or choose another model.",
        "在每种顺序下,此模型都只说同一个标签。请在“校准”中查看其偏向,或换用其他模型。",
    ),
    "tune.strip": ("Accuracy of each order", "各顺序的准确率"),
    "tune.orders": ("Orders, best first", "各顺序(由好到差)"),
    "tune.order": ("Demonstrations, first to last", "示例(从先到后)"),
    "tune.choices": ("Choices, first to last", "所选名次(从先到后)"),
    "tune.as_nearest_last": ("nearest last, case by case", "逐例:最近者在末"),
    "tune.order_by_case": (
        (
            "This template chooses for each case. What it chose stays, and its order changes: 1 is the first choice of each case. An order "
            "is kept as the template's seed."
        ),
        "此模板为每个用例各选示例。所选示例不变,只变顺序:1 为每个用例的首选。保存顺序即保存模板的种子。",
    ),
    "tune.accuracy": ("Accuracy", "准确率"),
    "tune.entropy": ("Entropy of labels", "标签熵"),
    "tune.marks": ("Which", "标记"),
    "tune.is_own": ("own", "当前"),
    "tune.is_kept": ("among the four of highest entropy", "熵最高的四种之一"),
    "tune.keep_order": ("Save this order as a new version", "将此顺序存为新版本"),
    "tune.kept": ("Saved as {name}, version {version}.", "已存为 {name} 第 {version} 版。"),
    "tune.choose_order": ("Choose an order in the table first.", "请先在表中选择一种顺序。"),
    "tune.claims": ("On test cases, which no search has seen", "在搜索未见过的测试用例上"),
    "tune.choice": ("Choice", "选择"),
    "tune.gain": ("Against the first row", "与首行相比"),
    "tune.claim.own": ("own order", "当前顺序"),
    "tune.claim.entropy": ("highest entropy, no answers needed", "熵最高(无需答案)"),
    "tune.claim.best": ("best where it was searched", "搜索中最好"),
    "tune.shows": ("k = {n}", "k = {n}"),
    "tune.curve": ("Accuracy by number of demonstrations", "准确率随示例数量的变化"),
    "tune.k": ("Demonstrations (k)", "示例数(k)"),
    "tune.range": ("Lowest to highest draw", "各次抽取的最低至最高"),
    "tune.draws": ("Draws", "抽取次数"),
    "tune.curve_note": (
        "The band is a 95 % interval over cases; a whisker is the range over draws of demonstrations.",
        "色带为用例上的 95% 区间;竖线为各次抽取示例的范围。",
    ),
    "tune.unfit": (
        "The model's context has no room for {counts} demonstrations.",
        "模型上下文容不下 {counts} 个示例。",
    ),
    "tune.method": ("Calibration", "校准方法"),
    "tune.method.plain": ("none", "无"),
    "tune.method.contextual": ("contextual", "上下文"),
    "tune.method.domain": ("domain", "领域"),
    "tune.method.batch": ("batch", "批量"),
    "tune.method.pmi": ("PMI", "PMI"),
    "tune.prior": ("What it says unasked", "先验"),
    "tune.error": ("Calibration error", "校准误差"),
    "tune.on_search": ("Where it was searched", "搜索用例上"),
    "tune.on_test": ("On test cases", "测试用例上"),
    "tune.case": ("Case", "用例"),
    "tune.text": ("Or any text", "或任意文本"),
    "tune.try": ("Show", "查看"),
    "tune.bars": ("Probability of each label", "各标签的概率"),
    "tune.measure_first": ("Measure first.", "请先测量。"),
    "tune.next_count": ("How many", "数量"),
    "tune.find_next": ("Find them", "查找"),
    "tune.next": (
        (
            "{n} of {waiting|train case|train cases} without an answer; the {bank|demonstration|demonstrations} of the bank count as labelled. Vote-k: cases that "
            "stand for many others which nothing labelled is near."
        ),
        "从 {waiting} 个没有答案的训练用例中选出 {n} 个;示例库中的 {bank} 个示例视为已标注。Vote-k:优先选能代表许多其他用例、且附近没有已标注者的用例。",
    ),
    "tune.first_stage": (
        "**First stage**, without a model: cases that stand for many others. Label about a tenth of what you will label in all.",
        "**第一阶段**,不用模型:选能代表许多其他用例的用例。请先标注计划总量的约十分之一。",
    ),
    "tune.second_stage": (
        (
            "**Second stage**, once those are in the bank: the model above answers every case that waits, by this template with what is "
            "labelled. The surest tenth is left out; the others are put in the order of its confidence and cut into as many equal groups as "
            "cases are wanted; of each the one with the most votes is named (Su et al. 2022)."
        ),
        (
            "**第二阶段**,待上述示例入库后:上方模型用此模板与已标注的示例回答每个等待答案的用例。去掉最有把握的十分之一,其余按把握排序,"
            "按所需数量等分成组,每组取得票最多者(Su 等,2022)。"
        ),
    ),
    "tune.start.confidence": ("Ask how sure the model is", "询问模型的把握"),
    "tune.sure": (
        "The model was asked about {n|case|cases}; the {left_out} it is surest of are left out; one of each of {groups} equal groups, least sure first.",
        "询问了 {n} 个用例;去掉最有把握的 {left_out} 个;其余等分为 {groups} 组,每组一个,最无把握者在前。",
    ),
    "tune.unsure": ("What to label next, by confidence", "按把握选出的待标注用例"),
    "tune.confidence": ("Confidence", "把握"),
    "tune.group": ("Group", "组"),
    "tune.labelled": ("in the bank", "已入库"),
    "tune.least_sure": ("Least sure", "最无把握"),
    "tune.half_sure": ("Median", "中位数"),
    "tune.most_sure": ("Surest", "最有把握"),
    "tune.confidence_hint_labels": ("share of the likeliest label", "最可能标签的份额"),
    "tune.confidence_hint": ("mean probability of its answer's tokens", "答案各词元概率的平均"),
    "tune.nothing_next": (
        "No train case of this scenario waits for an answer.",
        "此场景没有等待答案的训练用例。",
    ),
    "tune.stands_for": ("Stands for", "代表"),
    "tune.votes": ("Votes", "得票"),
    "tune.answer": ("Its answer", "其答案"),
    "tune.to_bank": ("Add to the bank", "加入示例库"),
    "tune.added": ("Demonstration {id} is in the bank.", "示例 {id} 已在库中。"),
    "tune.choose_case": ("Choose a case in the table first.", "请先在表中选择一个用例。"),
    "problem.no_labels": (
        "{name} has no labels. Name the closed set of its answers on the Build page and save it.",
        "{name} 没有标签。请在构建页写明其封闭答案集并保存。",
    ),
    "problem.searched_cases": ("Search on 1 to {most} cases, not {n}.", "搜索用例须为 1 到 {most} 个,不能是 {n} 个。"),
    "problem.no_search_cases": (
        "There is no val or train case to search on that expects one of the labels. Add cases with their answers.",
        "没有可供搜索、且期望答案为某个标签的验证或训练用例。请添加带答案的用例。",
    ),
    "problem.order_of_few": (
        "An order needs two demonstrations or more; this template shows {n}. Raise k or add demonstrations.",
        "顺序至少需要两个示例,此模板只展示 {n} 个。请提高 k 或添加示例。",
    ),
    "problem.no_bank": (
        "There is no demonstration to try that is not one of the cases. Add some to the bank.",
        "没有与用例不同的示例可试。请向示例库添加示例。",
    ),
    "problem.no_room": (
        "The prompt with its demonstrations is longer than the model's context. Show fewer or shorter ones.",
        "提示连同示例超出模型上下文。请减少或缩短示例。",
    ),
    "problem.measured_draws": (
        "Draw demonstrations 1 to {most} times, not {n}.",
        "抽取次数须为 1 到 {most},不能是 {n}。",
    ),
    "problem.no_likelihoods": (
        "The engine of {name} does not tell how likely a given answer is. Choose a model of the built-in engine.",
        "{name} 的引擎不提供给定答案的概率。请选择内置引擎的模型。",
    ),
    "problem.none_waits": (
        "No train case of this scenario waits for an answer. Add cases without one.",
        "此场景没有等待答案的训练用例。请添加没有答案的用例。",
    ),
    "problem.label_first": (
        "The second stage shows the model what is labelled, and nothing is. Label the cases of the first stage.",
        "第二阶段要向模型展示已标注的示例,而示例库为空。请先标注第一阶段的用例。",
    ),
    "problem.next_cases": ("Ask for 1 to {most} cases, not {n}.", "请索取 1 到 {most} 个用例,不能是 {n} 个。"),
}
