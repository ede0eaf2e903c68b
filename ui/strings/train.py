"""The train page; the names of settings come from the settings themselves, in Chinese from here."""

from backend.training.settings import KINDS, RoundsSettings, options

SETTINGS_ZH = {
    "reward.learning_rate": ("学习率", "适配器与输出头的步长。3e-3 适合内置模型,更大的模型用 1e-4。"),
    "ppo.learning_rate": ("学习率", "适配器与价值头的步长。3e-3 适合内置模型,更大的模型用 1e-5。"),
    "ift.learning_rate": ("学习率", "适配器的步长。2e-3 适合内置模型,更大的模型用 1e-5。"),
    "dpo.learning_rate": ("学习率", "适配器的步长。2e-3 适合内置模型,更大的模型用 1e-5。"),
    "kto.learning_rate": ("学习率", "适配器的步长。3e-3 适合内置模型,更大的模型用 1e-5。"),
    "sft.learning_rate": ("学习率", "适配器的步长。3e-3 适合内置模型,更大的模型用 1e-4。"),
    "num_train_epochs": ("轮数", "遍历评判的次数;过多会过拟合。"),
    "pretrain.learning_rate": ("学习率", "适配器的步长。3e-3 适合内置模型,更大的模型用 1e-4。"),
    "pretrain.num_train_epochs": ("轮数", "遍历文本的次数。"),
    "pretrain.batch_size": ("每步文本数", "每步平均的文本数,或长文本的片段数。"),
    "mlm_probability": ("遮盖比例", "BERT:被遮盖并预测的词元比例。"),
    "noise_density": ("移除比例", "T5:被剪去并重新写出的词元比例。"),
    "mean_noise_span_length": ("每段词元数", "T5:每处剪去的平均长度。"),
    "plm_probability": ("预测比例", "XLNet:被预测的词元比例。"),
    "max_span_length": ("最长片段", "XLNet:连续预测的词元数上限。"),
    "min_texts": ("最少文本数", "可学习的文本少于此数时拒绝任务。"),
    "dpo.num_train_epochs": ("轮数", "遍历答案对的次数;过多会过拟合。"),
    "kto.num_train_epochs": ("轮数", "遍历回答的次数;过多会过拟合。"),
    "sft.num_train_epochs": ("轮数", "遍历回答的次数;过多会过拟合。"),
    "dpo.batch_size": ("每步答案对数", "每步平均的答案对数量。"),
    "kto.batch_size": ("每步回答数", "每步平均的回答数量。KL 也由它们估计:16 个或更多。"),
    "sft.batch_size": ("每步回答数", "每步平均的回答数量。"),
    "ift.batch_size": ("每步回合数", "每次更新前采样的回答数。"),
    "kto.beta": ("Beta", "越大,策略越接近起点。"),
    "desirable_weight": ("可取回答的权重", "可取回答的数量乘以权重,应为不可取回答的 1 到 1.33 倍。"),
    "undesirable_weight": ("不可取回答的权重", "两个权重只改一个;失衡时运行会给出提示。"),
    "min_of_each": ("每类最少回答数", "可训练的可取回答或不可取回答少于此数时拒绝任务。"),
    "beta": ("Beta", "越大,策略越接近起点:sigmoid 用 0.1,ipo 约用 1。"),
    "loss_type": ("损失", "sigmoid 即 DPO;ipo 以每词元 1 / (2 beta) 奈特的差距为目标,请将 beta 提高到约 1。"),
    "dpo.label_smoothing": ("标签平滑", "认为判错的评判比例;仅用于 sigmoid。"),
    "reward.label_smoothing": ("标签平滑", "认为判反的评判比例。"),
    "ties": ("平局", "half:平局算双方各半胜;model:学习分数多接近时会判平局;drop:不用平局。"),
    "num_members": ("集成成员数", "并排训练的奖励模型数;它们的分歧显示评判未涉及之处。通常为 3 到 5。"),
    "annotator_weights": (
        "人员权重",
        "同一比较中每人的评判占多少份量,例如“ann 0.5, bob 0”;未写明者为 1,0 表示不用此人的评判。",
    ),
    "reliability": (
        "人员可靠度",
        "estimated:成对比较按多人评判所显示的概率来学习,依据每人与他人及金标的一致程度(Dawid-Skene);留出数字仍以原评判为准。",
    ),
    "kto.reliability": (
        "人员可靠度",
        "estimated:多人对同一回答的好坏意见不一时,各人按其选出较好回答的对数几率计权(Dawid-Skene);留出数字仍以原评判为准。",
    ),
    "ensemble": ("集成得分", "奖励模型有多个成员时:平均值、最小值,或 uwo,即平均值减去分歧。"),
    "uwo_coef": ("分歧的代价", "uwo 减去成员标准差的此倍数。"),
    "spread_stop": ("分歧停止线", "成员分歧达到最初的此倍数时停止;0 为关闭。"),
    "min_pairs": ("最少答案对数", "可训练的答案对少于此数时拒绝任务。"),
    "min_answers": ("最少回答数", "可学习的回答少于此数时拒绝任务。"),
    "ift.num_generations": ("每提示回答数", "每个回答与其余回答相比较;1 表示使用移动平均。"),
    "reward.batch_size": ("每步比较数", "每步平均的比较数量。"),
    "ppo.batch_size": ("每步回合数", "每次更新前采样的回答数。"),
    "warmup_share": ("预热比例", "学习率上升阶段所占的步数比例。"),
    "strength_margin": ("强度间隔", "对强偏好要求更大的分差;0 为关闭。"),
    "min_comparisons": ("最少比较数", "已评判比较少于此数时拒绝任务。"),
    "adv_coef": ("策略回答的权重", "好回答的得分还须以此权重高于策略自己的回答;0 为关闭。"),
    "adv_generations": ("每个好回答的策略回答数", "权重不为 0 时,在开始时采样一次。"),
    "reward.response_length": ("采样回答最长(词元)", "策略的回答在此处截断。"),
    "kind": (
        "方式",
        "adversarial(对抗):与策略自己的回答相对照。cooperative(协作):加入对其回答的新评判。",
    ),
    "rounds": ("轮数", "最多进行的轮数;可能提前结束。"),
    "rounds.adv_coef": ("策略回答的权重", "与评判并用;仅用于对抗轮次。"),
    "min_new_judgements": ("轮次之间的新评判数", "针对最新策略的回答;仅用于协作轮次。"),
    "max_accuracy_fall": ("准确率最大降幅", "留出的人工评判准确率比第一轮低这么多时,系列结束。"),
    "total_episodes": ("总回合数", "整个运行中采样的回答数。"),
    "num_generations": ("每提示回答数", "同一提示只读取一次。"),
    "num_ppo_epochs": ("每批遍历次数", "每批数据训练的次数。"),
    "num_mini_batches": ("每次遍历的更新数", "一批数据切成的份数。"),
    "kl_coef": ("KL 系数", "偏离基座一奈特的代价。"),
    "kl_penalty": ("KL 计入", "reward:作为奖励的一部分;loss:另计,有自己的梯度,用 k2 或 k3。"),
    "kl_estimator": ("KL 估计", "k1 均值正确但可能为负;k2 为其平方的一半;k3 从不为负。"),
    "value_adapter": (
        "价值适配器",
        "none:策略状态上的输出头;own:只供价值使用的适配器;reward:该适配器以奖励模型为起点。",
    ),
    "value_warmup_steps": ("价值预热步数", "最初只训练价值、策略不动的步数。"),
    "whiten_rewards": ("白化奖励", "将每批奖励缩放到方差为 1;均值保留。"),
    "approx_kl_stop": ("批内 KL 停止线", "策略与采样时相距达到每词元此奈特数时,离开这批数据;0 为关闭。"),
    "kl_target": ("KL 目标", "系数所追求的每回答奈特数;0 为固定。"),
    "kl_horizon": ("KL 适应期", "系数适应所需的回合数。"),
    "cliprange": ("策略裁剪", "词元概率比的有效范围。"),
    "cliprange_value": ("价值裁剪", "价值一次变动的上限。"),
    "vf_coef": ("价值损失权重", "价值损失的权重。"),
    "gamma": ("折扣", "1 表示后面词元的奖励全额计入。"),
    "lam": ("GAE lambda", "1 表示无偏但噪声更大。"),
    "temperature": ("温度", "采样与所有对数概率的温度。"),
    "response_length": ("最长回答(词元)", "回答在此处截断。"),
    "missing_eos_penalty": ("未结束惩罚", "回答没有结束词元时扣除的分数。"),
    "reward_clip": ("得分裁剪", "得分限制在此范围内。"),
    "kl_stop": ("KL 停止线", "回答偏离基座达到此奈特数时停止。"),
    "entropy_stop": ("熵停止线", "熵低于初值的此比例时停止;0 为关闭。"),
    "eval_cases": ("留出提示数", "训练前后各回答一次的留出提示。"),
    "lora_r": ("LoRA 秩", "每个线性层上训练的适配器大小。"),
    "lora_alpha": ("LoRA alpha", "适配器输出按 alpha / 秩缩放。"),
    "max_length": ("最长文本(词元)", "过长的用例截去开头,绝不截回答;截断会计数。"),
    "max_grad_norm": ("最大梯度范数", "更大的梯度会被缩小。"),
    "tokens_per_microbatch": ("每次前向的词元数", "一次前向的填充词元数,GPU 上为其八倍:内存与速度的权衡。"),
    "base_dtype": ("基座权重", "处理器支持时,bfloat16 使内存与时间减半;auto 在基座超过五百万参数时采用它。"),
    "threads": ("线程数", "0 表示最多四个核。线程数相同才保证权重一致。"),
    "save_minutes": ("检查点间隔(分钟)", "被中断的任务从最近的检查点继续。0 表示每步之后都保存。"),
}


def _settings() -> dict[str, tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    for kind, settings in {**KINDS, "rounds": RoundsSettings}.items():
        for option in options(settings):
            label, help = SETTINGS_ZH.get(f"{kind}.{option.name}") or SETTINGS_ZH[option.name]
            found[f"setting.{kind}.{option.name}"] = (option.label, label)
            found[f"setting.{kind}.{option.name}.help"] = (option.help, help)
    return found


STRINGS = {
    **_settings(),
    "train.tab.reward": ("Reward model", "奖励模型"),
    "train.tab.ppo": ("PPO", "PPO"),
    "train.tab.ift": ("IFT", "IFT"),
    "train.tab.dpo": ("DPO", "DPO"),
    "train.tab.kto": ("KTO", "KTO"),
    "train.tab.sft": ("SFT", "SFT"),
    "train.tab.pretrain": ("Pretrain", "继续预训练"),
    "train.about.reward": (
        "Learns to score answers from {judgements|judgement|judgements}. PPO and IFT follow its scores.",
        "从 {judgements} 个评判中学习给回答打分。PPO 与 IFT 依据其得分训练。",
    ),
    "train.about.ppo": (
        (
            "Proximal policy optimisation: the policy answers prompts and follows the reward model's scores in clipped steps, "
            "with a value for every token."
        ),
        "近端策略优化:策略回答提示,依据奖励模型的得分以裁剪步长更新,并为每个词元估计价值。",
    ),
    "train.about.ift": (
        (
            "REINFORCE on the learned reward: the policy answers each prompt several times, and each answer is measured "
            "against the others. Simpler than PPO, with fewer settings."
        ),
        "基于所学奖励的 REINFORCE:策略对每个提示作答数次,每个回答与其余回答相比较。比 PPO 更简单,设置更少。",
    ),
    "train.about.dpo": (
        (
            "Direct preference optimisation: learns straight from {judgements|judged comparison|judged comparisons}, without a reward model. "
            "It sees no new answers while it trains, so read some before you promote it."
        ),
        "直接偏好优化:无需奖励模型,直接从 {judgements} 个已评判的比较中学习。训练时不产生新回答,上线前请先查看一些。",
    ),
    "train.about.kto": (
        (
            "Kahneman-Tversky optimisation: learns from single answers that {judgements|judgement calls|judgements call} good or bad, and from "
            "{shown|demonstration|demonstrations}; it needs no pairs. It sees no new answers while it trains, so read some before you "
            "promote it."
        ),
        "卡尼曼-特沃斯基优化:从 {judgements} 个评判认定为好或不好的单个回答,以及 {shown} 个示例中学习,无需成对。训练时不产生新回答,上线前请先查看一些。",
    ),
    "train.about.sft": (
        (
            "Supervised fine-tuning: learns to write like {shown|demonstration|demonstrations} and the edited and winning answers of "
            "{judgements|judgement|judgements}. The usual first step."
        ),
        "监督微调:学习 {shown} 个示例,以及 {judgements} 个评判中修改过的回答与胜出的回答。通常是第一步。",
    ),
    "train.about.pretrain": (
        (
            "Continued pretraining: the adapter learns the language of {texts} plain texts before it learns a task. What it "
            "predicts fits the base: the next token (Llama), hidden tokens (BERT), removed spans (T5) or a random order (XLNet)."
        ),
        "继续预训练:适配器在学习任务之前,先从 {texts} 篇纯文本中学习语言。预测目标取决于基座:下一词元(Llama)、被遮盖的词元(BERT)、被移除的片段(T5)或随机顺序(XLNet)。",
    ),
    "train.start.reward": ("Train reward model", "训练奖励模型"),
    "train.start.ppo": ("Run PPO", "运行 PPO"),
    "train.start.ift": ("Run IFT", "运行 IFT"),
    "train.start.dpo": ("Run DPO", "运行 DPO"),
    "train.start.kto": ("Run KTO", "运行 KTO"),
    "train.start.sft": ("Run SFT", "运行 SFT"),
    "train.start.pretrain": ("Pretrain", "开始预训练"),
    "train.advanced": ("Advanced settings", "高级设置"),
    "train.seed": ("Seed", "种子"),
    "train.despite": ("Reason to go on with a weak reward model", "奖励模型较弱仍继续的理由"),
    "train.despite_hint": (
        "The reward model is not shown to be better than guessing; without a reason the job does not start.",
        "奖励模型尚未证明优于猜测;不填写理由则不会启动任务。",
    ),
    "train.command": ("The same from a terminal", "等效的终端命令"),
    "train.judgements": ("Judgements", "评判"),
    "train.minimum": ("usable for training; at least {n} needed", "可用于训练;至少需要 {n} 个"),
    "train.new": ("New", "新增"),
    "train.new_hint": ("since the last reward model", "自上次奖励模型以来"),
    "train.prompts": ("Prompts", "提示"),
    "train.prompts_hint": ("PPO and IFT would train on", "可供 PPO 与 IFT 训练"),
    "train.policy": ("Live policy", "已上线策略"),
    "train.policy_hint": ("training goes on from here", "训练从这里继续"),
    "train.reward": ("Reward model", "奖励模型"),
    "train.reward_hint": ("95 %: {spread}; {name} on held-out cases", "95 %:{spread};{name},留出用例"),
    "train.reward_none": ("train one first", "请先训练"),
    "train.none_yet": ("none yet", "暂无"),
    "train.baseline": ("Length alone", "仅看长度"),
    "train.baseline_hint": ("95 %: {spread}; the rule “{rule}”", "95 %:{spread};规则“{rule}”"),
    "train.baseline_none": ("shown with the first reward model", "训练首个奖励模型后显示"),
    "train.rule.longer": ("longer wins", "长者胜"),
    "train.rule.shorter": ("shorter wins", "短者胜"),
    "train.verdict.near_chance": (
        "This reward model is not shown to be better than guessing: its interval reaches what length, position or chance reach.",
        "尚未证明该奖励模型优于猜测:其区间触及长度、位置或随机基线。",
    ),
    "train.verdict.no_held_out": (
        "No judgements were held out, so nothing is known about this reward model's accuracy.",
        "没有留出评判,因此该奖励模型的准确率未知。",
    ),
    "train.jobs": ("Jobs", "任务"),
    "train.no_jobs": ("No jobs yet. Start one on the left.", "还没有任务,请在左侧启动。"),
    "train.column.job": ("Job", "任务"),
    "train.column.state": ("State", "状态"),
    "train.column.step": ("Step", "步数"),
    "train.column.left": ("Left", "剩余"),
    "train.column.data": ("Data", "数据"),
    "train.column.by": ("By", "发起人"),
    "train.column.when": ("When", "时间"),
    "train.column.model": ("Model", "模型"),
    "train.snapshot": ("snapshot {version} (n = {n})", "快照 {version}(n = {n})"),
    "train.to_model": ("model {id}", "模型 {id}"),
    "train.state.queued": ("queued", "排队中"),
    "train.state.running": ("running", "运行中"),
    "train.state.paused": ("paused", "已暂停"),
    "train.state.cancelling": ("stopping", "停止中"),
    "train.state.done": ("done", "完成"),
    "train.state.failed": ("failed", "失败"),
    "train.state.cancelled": ("stopped", "已停止"),
    "train.state.interrupted": ("interrupted", "已中断"),
    "train.job": ("Job {id} · {kind}", "任务 {id} · {kind}"),
    "train.left": ("about {time} left", "约剩 {time}"),
    "train.started": (
        "Job {id} ({kind}) is queued. You can close this page; it goes on.",
        "任务 {id}({kind})已排队。关闭页面不影响运行。",
    ),
    "train.stopping": (
        "Job {id} was asked to stop. What it had learnt is dropped.",
        "已请求停止任务 {id},其所学内容将丢弃。",
    ),
    "train.stop": ("Stop job", "停止任务"),
    "train.pause": ("Pause job", "暂停任务"),
    "train.resume": ("Resume job", "继续任务"),
    "train.pausing": (
        "Job {id} was asked to pause. It saves its last whole step and frees the processor.",
        "已请求暂停任务 {id},它会保存最近完成的一步并释放处理器。",
    ),
    "train.resumed": (
        "Job {id} is queued again. It goes on from its last checkpoint.",
        "任务 {id} 已重新排队,将从最近的检查点继续。",
    ),
    "train.curve": ("Curve", "曲线"),
    "train.step": ("step", "步"),
    "train.group.accuracy": ("Accuracy", "准确率"),
    "train.group.loss": ("Loss", "损失"),
    "train.group.margin": ("Margin of the implicit reward", "隐式奖励的差距"),
    "train.group.rewards": ("Implicit rewards", "隐式奖励"),
    "train.group.score": ("Score", "得分"),
    "train.group.spread": ("Disagreement of the reward model's members", "奖励模型成员的分歧"),
    "train.group.theta": ("Theta of the ties model", "平局模型的 theta"),
    "train.group.kl": ("KL to the base, nats per answer", "与基座的 KL,每回答奈特"),
    "train.group.logps": ("Log-probability of answers, nats", "回答的对数概率,奈特"),
    "train.group.start_kl": ("KL to where training started, nats per answer", "与训练起点的 KL,每回答奈特"),
    "train.group.entropy": ("Entropy, nats per token", "熵,每词元奈特"),
    "train.group.length": ("Tokens per answer", "每回答词元数"),
    "train.group.ends": ("Share of answers that end", "正常结束的回答比例"),
    "train.group.policy": ("Step size: KL and clipped share", "步长:KL 与裁剪比例"),
    "train.group.losses": ("Losses", "损失"),
    "train.group.gradient": ("Gradient norm", "梯度范数"),
    "train.group.left_out": ("Updates left out", "略过的更新数"),
    "train.samples": ("Sample answers", "回答样例"),
    "train.sample_step": ("Step {step}", "第 {step} 步"),
    "train.sample_foot": ("case {case} · score {score}", "用例 {case} · 得分 {score}"),
}
