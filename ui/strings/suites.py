"""The test page."""

STRINGS = {
    "suites.suite": ("Suite", "测试集"),
    "suites.new": ("A new suite", "新建测试集"),
    "suites.edit": ("What the suite asks", "测试集内容"),
    "suites.name": ("Name", "名称"),
    "suites.of_template": ("Cases of this template's scenario", "此模板场景的用例"),
    "suites.split": ("Split", "划分"),
    "suites.split.all": ("all", "全部"),
    "suites.split.train": ("train", "训练"),
    "suites.split.val": ("val", "验证"),
    "suites.split.test": ("test", "测试"),
    "suites.most": ("At most", "最多"),
    "suites.paste": ("More cases", "更多用例"),
    "suites.paste_hint": (
        (
            "CSV with a header, or one JSON table per line. The column expected is the expected answer, the others are variables. "
            "A column __expected holds a check of that case alone (contains:refund); more such columns, and its threshold, as in promptfoo."
        ),
        (
            "带表头的 CSV,或每行一个 JSON 对象。expected 列为期望回答,其余列为变量。"
            "列 __expected 为该用例自己的检查(如 contains:退款);更多此类列及其阈值的写法与 promptfoo 相同。"
        ),
    ),
    "suites.checks": ("Checks, one per line", "检查,每行一条"),
    "suites.checks_hint": (
        (
            "equals · contains:refund · not-icontains:sorry · levenshtein(3):kitten · is-json · f1. A value may name variables, and "
            "expected, in double braces; a line in braces is a check as JSON, with weight, threshold and metric."
        ),
        (
            "equals · contains:退款 · not-icontains:抱歉 · levenshtein(3):kitten · is-json · f1。值中可用双花括号写变量和 expected;"
            "花括号开头的行为 JSON 形式的检查,可带 weight、threshold、metric。"
        ),
    ),
    "suites.threshold": (
        "Threshold of a case's score (empty: every check must pass)",
        "用例得分阈值(留空:所有检查须通过)",
    ),
    "suites.save": ("Save suite", "保存测试集"),
    "suites.saved": (
        "{name}, version {version}: {n|case|cases}, {checks|check|checks}.",
        "{name} 第 {version} 版:{n} 个用例,{checks} 条检查。",
    ),
    "suites.own_checks": (
        "{n|case has|cases have} checks or a threshold of their own.",
        "{n} 个用例有自己的检查或阈值。",
    ),
    "suites.left_out": (
        "Read and left out, because nothing here asks or checks with it: {names}.",
        "已读取但未采用(此处的提问和检查都用不到):{names}。",
    ),
    "suites.file": (
        "… or from a file: CSV, JSON lines, YAML or JSON (taken when the suite is saved)",
        "……或来自文件:CSV、JSON 行、YAML 或 JSON(保存测试集时读取)",
    ),
    "suites.cut": ("cut off", "被截断"),
    "suites.cut_off": (
        "{n|answer was|answers were} cut off at {most|token|tokens}. Raise the longest answer and run again.",
        "有 {n} 个回答在 {most} 个词元处被截断。请调大“最长回答”后重新运行。",
    ),
    "suites.injection": ("Add the injection suite", "添加注入测试集"),
    "suites.injection_added": (
        "{name}: {n|case|cases} that give orders or fish for the canary, and a template of that name to try them on.",
        "{name}:{n} 个下命令或套取暗码的用例,并附同名模板可供试验。",
    ),
    "suites.choose": ("Choose a suite or save one first.", "请先选择或保存一个测试集。"),
    "suites.templates": ("Templates", "模板"),
    "suites.models": ("Models", "模型"),
    "suites.temperature": ("Temperatures (0, 0.7)", "温度(如 0, 0.7)"),
    "suites.judge": ("Judge, for checks that read a rubric", "评判模型(用于按评分标准的检查)"),
    "suites.judge_hint": (
        "llm-rubric:Is polite and names a date. Its agreement with people stands beside its figures.",
        "例:llm-rubric:语气礼貌并给出日期。它与人工判断的一致程度会并列显示。",
    ),
    "suites.no_judge": ("None", "无"),
    "suites.sends": ("Send to labelling when it is done", "完成后自动送去标注"),
    "suites.sends_hint": (
        "At most 200 comparisons for each. They are asked first and stand in no leaderboard: a rule chose them.",
        "每项最多 200 个比较。它们会优先标注,但因按规则挑选,不计入排行榜。",
    ),
    "suites.send.failed": ("cases that failed", "未通过的用例"),
    "suites.send.close": ("small reward margins", "奖励差距小的用例"),
    "suites.send.differ": ("columns that disagree", "各列不一致的用例"),
    "suites.max_tokens": ("Longest answer, tokens", "最长回答(词元)"),
    "suites.repeats": ("Times each", "每例次数"),
    "suites.seed": ("Seed", "种子"),
    "suites.follows": (
        "Run again for every policy that is trained, beside base and live",
        "每次训练出新策略后自动重跑(与基座、当前策略并列)",
    ),
    "suites.run": ("Run", "运行"),
    "suites.stop": ("Stop", "停止"),
    "suites.go_on": ("Go on", "继续"),
    "suites.runs": ("Runs", "运行记录"),
    "suites.no_runs": ("No run yet.", "尚无运行。"),
    "suites.which": ("Run", "运行"),
    "suites.when": ("Started", "开始"),
    "suites.done": ("Answered", "已回答"),
    "suites.state": ("State", "状态"),
    "suites.state.running": ("running", "运行中"),
    "suites.state.stopped": ("stopped", "已停止"),
    "suites.state.done": ("done", "完成"),
    "suites.without": (
        "{n|answer is|answers are} missing; the cells say why. Go on tries them again.",
        "{n} 个回答缺失,单元格内有原因;“继续”会重试。",
    ),
    "suites.column": ("Column", "列"),
    "suites.passed": ("Cases passed", "通过的用例"),
    "suites.score": ("Score", "得分"),
    "suites.flaky": ("Flaky", "不稳定"),
    "suites.seconds": ("Seconds", "秒"),
    "suites.tokens": ("Tokens, prompt + answer", "词元(提示+回答)"),
    "suites.columns": ("Columns", "各列"),
    "suites.pairs": ("Against column A, paired by case", "与 A 列按用例配对比较"),
    "suites.flips": ("Now pass / now fail", "转为通过/转为失败"),
    "suites.p": ("p (McNemar, Holm)", "p(McNemar,Holm)"),
    "suites.gain": ("Score gained", "得分变化"),
    "suites.says": ("That says", "结论"),
    "suites.better": ("better", "更好"),
    "suites.worse": ("worse", "更差"),
    "suites.needs": ("not told apart; about {n|case|cases} would", "无法区分;约需 {n} 个用例"),
    "suites.even": ("no difference seen", "未见差异"),
    "suites.more_cases": ("the score moved, no case flipped", "得分有变化,但无用例翻转"),
    "suites.show": ("Cases", "用例"),
    "suites.show.all": ("all", "全部"),
    "suites.show.failed": ("failed somewhere", "有失败"),
    "suites.show.differ": ("columns differ", "各列不同"),
    "suites.show.worse": ("worse than A", "比 A 差"),
    "suites.show.close": ("small margin", "差距小"),
    "suites.many": (
        (
            "{n} columns stand against A. Were none of them different, one would still look better or worse by chance alone in {chance} of "
            "such runs; the p above is adjusted for that (Holm). The best of several looks better than it is: confirm it on other cases."
        ),
        (
            "共有 {n} 列与 A 比较。即使毫无差别,仍有 {chance} 的此类运行会仅因偶然而出现“更好”或“更差”;上面的 p 已为此校正(Holm)。"
            "从多列中选出的最佳者往往被高估,请用其他用例确认。"
        ),
    ),
    "suites.agreement": (
        "Agreement with people, on answers that both judged",
        "与人工判断的一致程度(双方都评过的回答)",
    ),
    "suites.grader": ("Model", "模型"),
    "suites.accuracy": ("Same choice", "选择相同"),
    "suites.kappa": ("Kappa", "Kappa"),
    "suites.people": ("People", "人数"),
    "suites.is_judge": ("judge", "评判"),
    "suites.is_reward": ("reward model", "奖励模型"),
    "suites.not_known_yet": ("not known yet: nobody has judged these answers", "尚不可知:还没有人评过这些回答"),
    "suites.mark": ("Mark", "标记"),
    "suites.mode": ("Compare", "比较"),
    "suites.mode.same": ("answers to one prompt (they train)", "同一提示的回答(可用于训练)"),
    "suites.mode.across": ("columns (a vote for a template)", "各列(为模板投票)"),
    "suites.all_to_labelling": ("Send all shown", "发送全部所示"),
    "suites.marked_to_labelling": ("Send {n} marked", "发送 {n} 个标记项"),
    "suites.sent_none": ("No new comparison was made.", "没有产生新的比较。"),
    "suites.known": ("{n|was|were} in the queue or judged before.", "{n} 个先前已在队列中或已标注。"),
    "suites.alone": (
        "{n|case has|cases have} no two different answers to choose between.",
        "{n} 个用例没有两个不同的回答可供比较。",
    ),
    "suites.sent_by_rule": (
        "{n|comparison|comparisons} went to labelling when it was done.",
        "完成时有 {n} 个比较已送去标注。",
    ),
    "suites.none_by_rule": (
        "Nothing went to labelling by itself: no case was chosen, or those that were have no two different answers or wait there already.",
        "没有自动送去标注:没有符合规则的用例,或所选用例没有两个不同的回答、已在队列中。",
    ),
    "suites.worse_first": (
        "{n|case that A passes fails|cases that A passes fail} in another column; regressions stand first below.",
        "有 {n} 个用例 A 通过而其他列失败;这些退步排在下方最前。",
    ),
    "suites.previous": ("Previous", "上一页"),
    "suites.next": ("Next", "下一页"),
    "suites.page": ("{first} to {last} of {n}", "第 {first}–{last} 个,共 {n} 个"),
    "suites.case": ("Case", "用例"),
    "suites.no_rows": ("No such case.", "没有这样的用例。"),
    "suites.expected": ("Expected", "期望"),
    "suites.pass": ("passed", "通过"),
    "suites.fail": ("failed", "失败"),
    "suites.no_answer": ("no answer", "无回答"),
    "suites.to_labelling": ("Send marked", "发送标记项"),
    "suites.sent": (
        "{n|comparison waits|comparisons wait} in the queue: {training} of equal prompts, {votes} as votes for a template or its demonstrations.",
        "{n} 个比较已进入队列:{training} 个为同一提示,{votes} 个为模板或示例的投票。",
    ),
    "problem.nothing_picked": ("Mark rows or cells of the table first.", "请先在表中标记行或单元格。"),
    "problem.many_sent": (
        "One click sends 1 to {most} cases, not {n}. Choose a narrower filter, or mark some.",
        "一次可发送 1 到 {most} 个用例,不能是 {n} 个。请缩小筛选范围,或标记其中一些。",
    ),
    "problem.temperatures_text": (
        "The temperatures are “{value}”; write numbers with commas between: 0, 0.7, 1.",
        "温度为“{value}”;请写用逗号分隔的数,如 0, 0.7, 1。",
    ),
    "problem.no_judge": (
        "A check of this suite reads a rubric: choose the model that judges.",
        "此测试集有按评分标准的检查:请选择评判模型。",
    ),
    "problem.no_such_reward": ("There is no reward model {name}.", "没有名为 {name} 的奖励模型。"),
    "problem.no_live_reward": (
        "No reward model is live. Promote one, or name one in the check.",
        "没有上线的奖励模型。请先上线一个,或在检查中写明名称。",
    ),
    "problem.unchecked_cases": (
        "{n|case has no check of its own|cases have no check of their own}, and the suite has none: every answer would pass.",
        "{n} 个用例没有自己的检查,测试集也没有检查:任何回答都会通过。",
    ),
    "problem.no_suite_name": (
        "A suite needs a name of at most 120 characters.",
        "测试集需要一个不超过 120 个字符的名称。",
    ),
    "problem.suite_cases": (
        "A suite takes 1 to {most} cases, not {n}.",
        "测试集可含 1 到 {most} 个用例,不能是 {n} 个。",
    ),
    "problem.suite_threshold": (
        "The threshold is {value}; it must lie between 0 and 1.",
        "阈值为 {value},须在 0 与 1 之间。",
    ),
    "problem.threshold_text": (
        "The threshold is “{value}”; it must be a number between 0 and 1.",
        "阈值为“{value}”,须为 0 与 1 之间的数。",
    ),
    "problem.no_checks": (
        "A suite needs a check, or every answer would pass.",
        "测试集至少需要一条检查,否则任何回答都会通过。",
    ),
    "problem.foreign_case": (
        "A case belongs to another project. Take it out of the suite.",
        "有用例属于其他项目,请将其移出测试集。",
    ),
    "problem.suite_arms": ("Choose 1 to {most} columns, not {n}.", "请选择 1 到 {most} 列,不能是 {n} 列。"),
    "problem.suite_repeats": ("Ask each case 1 to {most} times, not {n}.", "每例可问 1 到 {most} 次,不能是 {n} 次。"),
    "problem.suite_cells": (
        "{n} answers are too many for one run; at most {most}.",
        "一次运行最多 {most} 个回答,{n} 个过多。",
    ),
    "problem.suite_column": (
        "A column needs a template of this project and a model that writes.",
        "每列需要本项目的模板和一个能写回答的模型。",
    ),
    "suites.started": ("Run {id} is under way: {n|answer|answers}.", "运行 {id} 已开始:{n} 个回答。"),
}
