"""Rounds on the train page: reward model and policy take turns."""

STRINGS = {
    "rounds.title": ("Rounds: reward model and policy take turns", "轮次:奖励模型与策略交替训练"),
    "rounds.about": (
        (
            "Each round trains a reward model and then runs IFT with it, with the settings of those two tabs above. "
            "Adversarial: the reward model also learns to tell good answers from the policy's own. Cooperative: people "
            "judge the newest policy's answers between rounds. A series stops by itself when the reward model no longer "
            "separates, or when it loses accuracy on held-out judgements. Nothing goes live without you."
        ),
        (
            "每轮先训练奖励模型,再以它运行 IFT,设置取自上方这两个标签页。对抗:奖励模型还学习区分好回答与策略自己的回答。"
            "协作:每轮之间由人评判最新策略的回答。当奖励模型不再能区分,或在留出评判上准确率下降时,系列自动结束。未经您同意,不会上线任何模型。"
        ),
    ),
    "train.start.rounds": ("Start rounds", "开始轮次"),
    "rounds.stop": ("Stop rounds", "停止轮次"),
    "rounds.despite_hint": (
        "A series ends at a reward model that is not shown to be better than guessing, unless you say why to go on.",
        "若奖励模型未证明优于猜测,系列即结束,除非您说明继续的理由。",
    ),
    "rounds.started": (
        "Rounds have begun: job {id} trains the first reward model. You can close this page; they go on.",
        "轮次已开始:任务 {id} 训练第一个奖励模型。关闭页面不影响运行。",
    ),
    "rounds.stopped": (
        "The series was stopped in round {number}. The models it made stay.",
        "系列已在第 {number} 轮停止,已生成的模型保留。",
    ),
    "rounds.none_to_stop": ("No rounds are under way.", "没有正在进行的轮次。"),
    "rounds.now.training_reward": (
        "Round {number} of {wanted}: job {job} trains the reward model ({state}). The policy follows by itself.",
        "第 {number}/{wanted} 轮:任务 {job} 正在训练奖励模型({state}),随后自动训练策略。",
    ),
    "rounds.now.training_policy": (
        "Round {number} of {wanted}: in job {job} the policy follows the new reward model ({state}).",
        "第 {number}/{wanted} 轮:任务 {job} 中策略正依据新的奖励模型训练({state})。",
    ),
    "rounds.now.waiting_for_people": (
        (
            "Round {number} of {wanted} waits for people: {n|more judgement|more judgements} of the new policy's answers. They come first "
            "on the label page; when they are there, the next round starts by itself."
        ),
        "第 {number}/{wanted} 轮等待人工评判:还需 {n} 个对新策略回答的评判。它们在标注页优先出现,完成后自动开始下一轮。",
    ),
    "rounds.now.paused": (
        "Round {number} of {wanted} waits: job {job} is paused. Resume it above and the series goes on.",
        "第 {number}/{wanted} 轮等待中:任务 {job} 已暂停。在上方继续该任务,系列即可继续。",
    ),
    "rounds.log": ("Log of rounds", "轮次记录"),
    "rounds.log_hint": (
        (
            "Good told from own: held-out good answers that score above the policy's own, by the reward model before → by the "
            "new one. Accuracy: on people's held-out judgements. Gain: of the policy's score on held-out prompts. KL: nats "
            "per answer to the base. Intervals are 95 %."
        ),
        (
            "好回答与自身回答的区分:留出的好回答得分高于策略自身回答的比例,由前一个奖励模型 → 由新的判断。准确率:在留出的人工评判上。"
            "得分提升:留出提示上策略得分的变化。KL:每回答与基座的奈特数。区间均为 95 %。"
        ),
    ),
    "rounds.empty": ("No rounds yet.", "还没有轮次。"),
    "rounds.column.round": ("Round", "轮次"),
    "rounds.column.state": ("State", "状态"),
    "rounds.column.why": ("Why it ended", "结束原因"),
    "rounds.column.kind": ("Kind", "方式"),
    "rounds.column.separation": ("Good told from own", "好回答与自身回答的区分"),
    "rounds.column.accuracy": ("Accuracy", "准确率"),
    "rounds.column.gain": ("Gain in score", "得分提升"),
    "rounds.column.kl": ("KL", "KL"),
    "rounds.column.reward": ("Reward model", "奖励模型"),
    "rounds.column.policy": ("Policy", "策略"),
    "rounds.column.started": ("Started", "开始"),
    "rounds.number": ("{number} of {wanted}", "{number}/{wanted}"),
    "rounds.kind.adversarial": ("adversarial", "对抗"),
    "rounds.kind.cooperative": ("cooperative", "协作"),
    "rounds.newest": ("newest: {share}", "最新:{share}"),
    "rounds.to_job": ("job {id}", "任务 {id}"),
    "rounds.state.training_reward": ("training reward model", "训练奖励模型"),
    "rounds.state.training_policy": ("training policy", "训练策略"),
    "rounds.state.waiting_for_people": ("waiting for people", "等待人工评判"),
    "rounds.state.done": ("done", "完成"),
    "rounds.state.ended": ("ended by a rule", "按规则结束"),
    "rounds.state.stopped": ("stopped", "已停止"),
    "rounds.state.failed": ("failed", "失败"),
    "rounds.reason.all_done": ("all rounds are done", "全部轮次已完成"),
    "rounds.reason.no_separation": (
        "the policy's answers can no longer be told from the good ones",
        "策略的回答已无法与好回答区分",
    ),
    "rounds.reason.no_separation_cooperative": (
        "on the newest answers the reward model is no better than its baselines",
        "在最新回答上,奖励模型不优于基线",
    ),
    "rounds.reason.accuracy_fell": (
        "accuracy on held-out judgements fell; the reward model of the round before is the current one again",
        "留出评判上的准确率下降;已恢复上一轮的奖励模型",
    ),
    "rounds.reason.weak_reward_model": (
        "the reward model is not shown to be better than guessing",
        "奖励模型尚未证明优于猜测",
    ),
    "rounds.reason.job_failed": ("its job failed; the job says why", "任务失败,原因见该任务"),
    "rounds.reason.job_stopped": ("its job was stopped", "任务被停止"),
    "rounds.reason.stopped_by_person": ("stopped by a person", "由人停止"),
    "rounds.reason.starter_may_not": (
        "the person who started it may no longer train",
        "发起人已无训练权限",
    ),
    "rounds.reason.cannot_go_on": ("the next job could not be queued: {problem}", "无法排入下一个任务:{problem}"),
    "problem.rounds_under_way": (
        "Rounds are under way in this project. Wait for them, or stop them first.",
        "该项目有正在进行的轮次,请等待其结束或先停止。",
    ),
}
