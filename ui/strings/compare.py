"""The compare page."""

STRINGS = {
    "compare.seed": ("Seed", "种子"),
    "compare.columns": ("Columns", "列数"),
    "compare.run": ("Run", "运行"),
    "compare.stop": ("Stop", "停止"),
    "compare.template": ("Template", "模板"),
    "compare.model": ("Model", "模型"),
    "compare.temperature": ("Temperature", "温度"),
    "compare.top_p": ("Top-p", "Top-p"),
    "compare.max_tokens": ("Max tokens", "最多词元"),
    "compare.pane.waiting": ("waiting for the engine", "等待引擎"),
    "compare.pane.in_line": ("the engine is full: place {place} in its queue", "引擎已满:排队第 {place} 位"),
    "compare.pane.streaming": ("{tokens} tokens · {seconds} s", "{tokens} 个词元 · {seconds} 秒"),
    "compare.pane.done": ("{tokens} tokens · {seconds} s · done", "{tokens} 个词元 · {seconds} 秒 · 完成"),
    "compare.pane.failed": ("failed", "失败"),
    "compare.pane.stopped": ("stopped", "已停止"),
    "compare.running": ("Answering…", "正在生成……"),
    "compare.stopped": ("Stopped. What was written so far is not stored.", "已停止。已生成的内容不会保存。"),
    "compare.stored": (
        "All {of} answers are stored. Send them to labelling, or run again with another seed.",
        "{of} 个回答均已保存。可送去标注,或换个种子再次运行。",
    ),
    "compare.not_all": (
        "{stored} of {of} answers are stored; a comparison needs all of them.",
        "已保存 {stored} / {of} 个回答;比较需要全部回答。",
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
        "{n} comparisons wait for labelling; {alike} were left out because both answers were the same.",
        "{n} 个比较已进入标注队列;{alike} 个因两个回答相同而略去。",
    ),
}
