"""The compare page."""

STRINGS = {
    "compare.seed": ("Seed", "种子"),
    "compare.columns": ("Columns", "列数"),
    "compare.seeds": ("Seeds", "种子数"),
    "compare.best": ("Best", "最好"),
    "compare.demonstration": ("Keep as example", "存为示例"),
    "compare.case": ("Keep as expected", "存为期望回答"),
    "compare.diff": ("Diff", "差异"),
    "compare.logps": ("Log-probabilities", "对数概率"),
    "compare.markdown": ("Markdown", "Markdown"),
    "compare.bad": ("All bad", "都不好"),
    "compare.next": ("What you say next", "您接下来说的话"),
    "compare.go_on": ("Go on from the best", "从最好的回答继续"),
    "compare.write": ("Ask for an ideal answer", "请标注员撰写理想回答"),
    "compare.asked_to_write": (
        "Request {id} waits for annotators: they write the answer to this case themselves.",
        "请求 {id} 已进入标注队列:标注员将自行撰写此用例的回答。",
    ),
    "compare.judged": ("Saved {id}. Best: {best}.", "已保存 {id}。最好:{best}。"),
    "compare.judged_part": (
        "Saved {id}. Best: {best}. Not all had ended: it is kept as a judgement of parts, and not trained on.",
        "已保存 {id}。最好:{best}。部分回答未完成:仅作为对部分文本的评判保存,不用于训练。",
    ),
    "compare.one_stopped": ("Stopped: {letters}. The others go on.", "已停止:{letters}。其余继续。"),
    "compare.one_ended": ("{letter} had ended already: its answer is whole.", "{letter} 早已结束:回答是完整的。"),
    "compare.all_ended": ("All had ended already: nothing was left to stop.", "均已结束,没有可停止的内容。"),
    "compare.alike": (
        "{letters} wrote word for word the same and count as one answer.",
        "{letters} 的回答一字不差,视为同一个回答。",
    ),
    "compare.kept.demonstration": ("Kept as demonstration {id}.", "已存为示例 {id}。"),
    "compare.kept.case": (
        "Kept as case {id}, with this answer as the expected one.",
        "已存为用例 {id},以此为期望回答。",
    ),
    "compare.pane.rate": ("first after {first} s · {rate}/s", "首词 {first} 秒 · 每秒 {rate}"),
    "compare.pane.logp": ("{logp} nats/token", "每词元 {logp} 奈特"),
    "compare.sent_many": (
        "{n|comparison waits|comparisons wait} for labelling ({id}). Annotators see neither template nor model.",
        "{n} 个比较已进入标注队列({id})。标注员看不到模板和模型。",
    ),
    "compare.run": ("Run", "运行"),
    "compare.stop": ("Stop", "停止"),
    "compare.template": ("Template", "模板"),
    "compare.model": ("Model", "模型"),
    "compare.temperature": ("Temperature", "温度"),
    "compare.top_p": ("Top-p", "Top-p"),
    "compare.max_tokens": ("Max tokens", "最多词元"),
    "compare.pane.waiting": ("waiting for the engine", "等待引擎"),
    "compare.pane.in_line": ("the engine is full: place {place} in its queue", "引擎已满:排队第 {place} 位"),
    "compare.pane.streaming": ("{tokens|token|tokens} · {seconds} s", "{tokens} 个词元 · {seconds} 秒"),
    "compare.pane.done": ("{tokens|token|tokens} · {seconds} s · done", "{tokens} 个词元 · {seconds} 秒 · 完成"),
    "compare.pane.failed": ("failed", "失败"),
    "compare.pane.stopped": ("stopped", "已停止"),
    "compare.running": ("Answering…", "正在生成……"),
    "compare.stopped": (
        "Stopped: {letters}. What was written so far is not stored unless you judge it.",
        "已停止:{letters}。除非您作出评判,已生成的部分不会保存。",
    ),
    "compare.stored": (
        "All {of} answers are stored. Send them to labelling, or run again with another seed.",
        "{of} 个回答均已保存。可送去标注,或换个种子再次运行。",
    ),
    "compare.stopped_empty": (
        "Stopped before the first word: {letters}. Nothing of it is judged or sent.",
        "在首个词之前已停止:{letters}。不参与评判,也不会送去标注。",
    ),
    "compare.no_answer": (
        "No answer came from {letters}: the reason stands there.",
        "{letters} 没有给出回答,原因见该列。",
    ),
    "compare.stored_others": (
        "The other {of} answers are stored; they alone are judged, compared and sent.",
        "其余 {of} 个回答已保存;评判、对比和送标注只涉及它们。",
    ),
    "compare.one_stored": (
        "One answer is stored; a comparison needs two.",
        "已保存 1 个回答;比较需要两个。",
    ),
    "compare.send": ("Send to labelling", "送去标注"),
    "compare.sent": (
        "Comparison {id} waits for labelling. Annotators see neither template nor model.",
        "比较 {id} 已进入标注队列。标注员看不到模板和模型。",
    ),
    "compare.many_template": ("Template for many cases", "批量:模板"),
    "compare.many_model": ("Model", "模型"),
    "compare.many": ("Number of cases", "用例数"),
    "compare.make": ("Generate comparisons", "生成比较"),
    "compare.made": (
        "{n|comparison waits|comparisons wait} for labelling; {alike|was|were} left out because both answers were the same.",
        "{n} 个比较已进入标注队列;{alike} 个因两个回答相同而略去。",
    ),
    "problem.nothing_to_read": (
        "One of the columns has written nothing yet. Wait for its first words.",
        "有一列尚未生成任何内容,请等待其首个词。",
    ),
    "problem.one_answer": (
        "Fewer than two columns have an answer. Run the columns again.",
        "有回答的列不足两个,请重新运行。",
    ),
    "problem.void_best": (
        "That column has no answer to judge. Judge the others, or run the columns again.",
        "该列没有可评判的回答。请评判其他列,或重新运行。",
    ),
    "problem.other_answers": (
        "Other answers stand on the page by now. Read them, and judge again.",
        "页面上已是其他回答。请阅读后重新评判。",
    ),
    "problem.no_such_run": (
        "These answers are not at hand any more. Run the columns again.",
        "这些回答已不可用,请重新运行。",
    ),
    "problem.many_panes": (
        "{columns} columns with {seeds} seeds are more than {most} answers. Take fewer of either.",
        "{columns} 列 × {seeds} 个种子超过 {most} 个回答,请减少其一。",
    ),
    "problem.many_questions": (
        "A demonstration shows one question; this is a conversation.",
        "示例只展示一个问题;这是一段对话。",
    ),
    "battle.begin": ("Battle", "对战"),
    "battle.unknown": ("who is it?", "是谁?"),
    "battle.left": ("A is better", "A 更好"),
    "battle.tie": ("Tie", "平局"),
    "battle.right": ("B is better", "B 更好"),
    "battle.both_bad": ("Both bad", "都不好"),
    "battle.vote": ("Which is better? Names come after the vote.", "哪个更好?投票后公布名称。"),
    "battle.stopped": (
        "Stopped. A battle is judged when both have ended: begin another.",
        "已停止。对战须在双方都完成后评判,请再开一场。",
    ),
    "battle.not_both": (
        "A battle is judged when both have answered; the column without an answer says why. Begin another.",
        "对战须在双方都给出回答后评判;未回答的一列写明了原因。请再开一场。",
    ),
    "battle.streaming": ("writing…", "正在生成……"),
    "battle.done": ("done", "完成"),
    "battle.alike": (
        "Both wrote the same: there is nothing to choose between. Begin another battle.",
        "两个回答相同,无从选择。请再开一场对战。",
    ),
    "battle.revealed": ("Saved {id}. A was {left}, B was {right}.", "已保存 {id}。A 是 {left},B 是 {right}。"),
    "problem.no_cases_to_draw": (
        "This project has no cases to draw from. Add some on the Build page.",
        "此项目没有可供抽取的用例,请在构建页面添加。",
    ),
    "problem.no_case_with_values": (
        (
            'No case holds all that a template asks for: "{template}" asks for {names} too. Add a case with that value on the Build '
            "page, or take it out of the template."
        ),
        "没有用例包含模板所需的全部值:“{template}”还需要 {names}。请在构建页面添加含该值的用例,或将其从模板中去掉。",
    ),
    "problem.no_case_fits": (
        'The template "{template}" cannot be filled from any of its cases. {problem}',
        "模板“{template}”无法用其任何用例填充。{problem}",
    ),
    "problem.one_model": ("A battle needs two models. Train a policy first.", "对战需要两个模型,请先训练一个策略。"),
}
