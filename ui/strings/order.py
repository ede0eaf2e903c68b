"""The order of the queue, on the quality page."""

STRINGS = {
    "order.every": ("Order by itself after so many new judgements", "每有多少新评判后自动重排"),
    "order.every_hint": (
        "By the rule above; 0 leaves it to the button. Below 200 judgements chance's order stays.",
        "按上面的规则;0 表示仅由按钮触发。评判少于 200 个时保持随机顺序。",
    ),
    "order.repeat": ("Save this", "保存此设置"),
    "order.repeats": (
        "Saved. The queue is ordered by itself after every {every} new judgements.",
        "已保存。每有 {every} 个新评判,队列会自动重排。",
    ),
    "order.repeats_not": ("Saved. The queue is ordered by the button alone.", "已保存。队列仅由按钮重排。"),
    "order.by_button": ("The queue is not ordered by itself.", "队列不会自动重排。"),
    "order.by_itself": (
        "Ordered by itself after every {every} new judgements, as {by} asked: {rule}. {new} came since the last order.",
        "应 {by} 的要求,每有 {every} 个新评判自动重排:{rule}。上次重排以来已有 {new} 个。",
    ),
    "order.by_itself_later": (
        "Ordered by itself after every {every} new judgements, once there are {least}; there are {count}. Until then chance is better.",
        "评判达到 {least} 个后,每有 {every} 个新评判自动重排;目前有 {count} 个。在此之前随机顺序更有益。",
    ),
    "problem.bad_every": (
        "The queue is ordered by itself after {least} to {most} new judgements; 0 leaves it to the button.",
        "自动重排须设为 {least} 到 {most} 个新评判;0 表示仅由按钮触发。",
    ),
    "order.tab": ("Order of the queue", "队列顺序"),
    "order.about": (
        (
            "People are asked from two arms. The random arm ({share} of the desks) is in chance's order, always, and every figure "
            "about people and models rests on it. The priority arm is in the order of a rule. Held-out cases stay in the random arm."
        ),
        (
            "评判来自两组。随机组(占 {share})始终按随机顺序,所有关于人员与模型的数字都以它为准;优先组按规则排序。"
            "留出用例只在随机组。"
        ),
    ),
    "order.random": ("Random arm, judged", "随机组,已评判"),
    "order.priority": ("Priority arm, judged", "优先组,已评判"),
    "order.waiting": ("{count} wait; {share} of what is asked", "{count} 个待评判;占询问的 {share}"),
    "order.rule": ("Ask first", "优先询问"),
    "order.uncertainty": ("what a probe would learn most from", "探针能学到最多的"),
    "order.disagreement": ("where reward models, or probes, disagree", "奖励模型成员或探针意见不一的"),
    "order.coverage": ("what is least like anything judged", "与已评判内容最不相似的"),
    "order.start": ("Order the queue", "排列队列"),
    "order.shuffle": ("Back to chance's order", "恢复随机顺序"),
    "order.started": (
        "Job {id} reads what waits. The order changes when it is done; nobody has to wait.",
        "任务 {id} 正在读取待评判内容,完成后顺序即改变,无需等待。",
    ),
    "order.shuffled": (
        "{count|comparison is|comparisons are} in a random order again.",
        "{count} 个比较已恢复随机顺序。",
    ),
    "order.under_way": ("Job {id} is ordering the queue.", "任务 {id} 正在排列队列。"),
    "order.failed": ("Job {id} failed: {error}", "任务 {id} 失败:{error}"),
    "order.done": (
        "Job {id} ordered {count|comparison|comparisons} by {rule}; it knew {judged|judgement|judgements}.",
        "任务 {id} 已按“{rule}”排列 {count} 个比较,依据 {judged} 个评判。",
    ),
    "order.gain": ("Has it been worth it?", "是否值得?"),
    "order.gain_unknown": (
        (
            "Not measured yet. Every ordering measures it anew: probes from as many judgements of either arm, tested on held-out "
            "cases of the random arm."
        ),
        "尚未测量。每次排列都会重新测量:用两组数量相同的评判训练探针,在随机组的留出用例上检验。",
    ),
    "order.gain_too_few": (
        (
            "Too few judgements to tell: {each} in the smaller arm ({fewest_judged} are needed), {cases} held-out cases "
            "({fewest_cases} are needed)."
        ),
        "评判太少,无法判断:较小的组有 {each} 个(需 {fewest_judged} 个),留出用例 {cases} 个(需 {fewest_cases} 个)。",
    ),
    "order.gain_gain": (
        (
            "Yes: {value} points of held-out accuracy over chance ({low} to {high}): {with_priority} against {with_random}, from "
            "{each} judgements each, on {n} held-out cases."
        ),
        (
            "是:留出准确率比随机高 {value} 个百分点({low} 到 {high}):{with_priority} 对 {with_random},各 {each} 个评判,"
            "留出用例 {n} 个。"
        ),
    ),
    "order.gain_none": (
        (
            "No gain shown: {value} points ({low} to {high}): {with_priority} against {with_random}, from {each} judgements each, on "
            "{n} held-out cases."
        ),
        "未显示增益:{value} 个百分点({low} 到 {high}):{with_priority} 对 {with_random},各 {each} 个评判,留出用例 {n} 个。",
    ),
    "order.gain_loss": (
        (
            "It costs: {value} points ({low} to {high}): {with_priority} against {with_random}, from {each} judgements each, on {n} "
            "held-out cases. Go back to chance's order."
        ),
        (
            "得不偿失:{value} 个百分点({low} 到 {high}):{with_priority} 对 {with_random},各 {each} 个评判,留出用例 {n} 个。"
            "请恢复随机顺序。"
        ),
    ),
    "order.first": ("What comes first in the priority arm", "优先组中最先询问的"),
    "order.nothing_first": ("Nothing waits in the priority arm.", "优先组中没有待评判内容。"),
    "order.why": ("Why", "原因"),
    "order.score": ("Teaches (nats)", "信息量(nat)"),
    "order.why_uncertainty": (
        "A probe gives the first answer {chance} and has seen little that tells these two apart.",
        "探针给第一个回答 {chance},几乎没见过能区分这两个回答的评判。",
    ),
    "order.why_disagreement": (
        "Models of the same judgements disagree; on average they give the first answer {chance}.",
        "由相同评判得到的模型意见不一;平均给第一个回答 {chance}。",
    ),
    "order.why_coverage": ("Little like it was judged so far.", "迄今少有相似内容被评判。"),
    "order.why_shuffled": ("Chance's order.", "随机顺序。"),
    "problem.ordering_already": (
        "The queue is being ordered already. Wait until it is done.",
        "队列正在排列中,请等待完成。",
    ),
    "problem.nothing_to_order": (
        "No comparison waits that nobody has begun and that chance did not keep in the random arm. Send more to labelling.",
        "没有可排列的比较:都已有人开始,或留在随机组。请发送更多到标注。",
    ),
    "problem.few_to_order_by": (
        "The rule needs {minimum} judgements to learn from; there are {count}. Until then chance's order is better.",
        "此规则需要 {minimum} 个评判;现有 {count} 个。在此之前随机顺序更好。",
    ),
}
