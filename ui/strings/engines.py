"""The engines page, and what can be wrong with a remote engine."""

STRINGS = {
    "engines.own": ("The engine of this machine", "本机引擎"),
    "engines.again": ("Look again", "刷新"),
    "engines.asleep": (
        "The engine does not run. It starts by itself when somebody asks for an answer.",
        "引擎未运行。有人请求回答时会自动启动。",
    ),
    "engines.starting": ("The engine is starting. Look again in a moment.", "引擎正在启动,请稍后刷新。"),
    "engines.silent": (
        "The engine runs but does not answer. One that stays so is ended when it is next asked, and started again.",
        "引擎正在运行但没有应答。若持续如此,下次请求时会将其结束并重新启动。",
    ),
    "engines.state": ("State", "状态"),
    "engines.running": ("answering", "正常应答"),
    "engines.resting": ("resting while a model is trained", "训练期间暂停"),
    "engines.speed": ("Tokens per second", "每秒词元数"),
    "engines.speed_hint": ("over its last 200 steps", "最近 200 步"),
    "engines.rows": ("Answers being written", "正在生成的回答"),
    "engines.rows_hint": ("{n|request waits|requests wait}", "{n} 个请求等待中"),
    "engines.adapters": ("Adapters in memory", "内存中的适配器"),
    "engines.adapters_hint": ("on one base", "共用一个基座"),
    "engines.memory": ("Memory", "内存"),
    "engines.memory_hint": ("of the engine's process", "引擎进程占用"),
    "engines.gpu": ("GPU memory", "显存"),
    "engines.gpu_hint": ("held by the engine", "引擎占用"),
    "engines.batch_fill": ("Batch fill", "批次填充率"),
    "engines.batch_fill_hint": ("rows in use, over its last steps", "最近若干步中使用的行"),
    "engines.cache_hits": ("Prompt tokens from the cache", "来自缓存的提示词元"),
    "engines.cache_hits_hint": ("of all prompt tokens since the start", "占启动以来全部提示词元"),
    "engines.remote": ("Remote engines", "远程引擎"),
    "engines.hosts": (
        "This server may call: {hosts}. Whoever runs it sets this with engine_hosts.",
        "本服务器可调用:{hosts}。由运行者通过 engine_hosts 设置。",
    ),
    "engines.no_hosts": ("no other server", "无其他服务器"),
    "engines.table": ("Remote engines", "远程引擎"),
    "engines.none": ("No remote engine yet.", "尚无远程引擎。"),
    "engines.name": ("Name", "名称"),
    "engines.base_url": ("Base URL", "基础地址"),
    "engines.base_url_hint": (
        "Of any server with OpenAI's protocol, such as https://api.example.com/v1",
        "任何兼容 OpenAI 协议的服务器,例如 https://api.example.com/v1",
    ),
    "engines.key": ("Where the key stands", "密钥所在位置"),
    "engines.key_hint": (
        "Never the key itself: env:NAME_API_KEY, or file:name in the folder secrets; empty for none",
        "切勿填写密钥本身:env:NAME_API_KEY,或 secrets 文件夹中的 file:name;无密钥则留空",
    ),
    "engines.no_key": ("no key", "无密钥"),
    "engines.context": ("Context in tokens", "上下文词元数"),
    "engines.context_hint": (
        "What its models hold. Tokens of a prompt are estimated for remote engines.",
        "其模型可容纳的长度。远程引擎的提示词元数为估算值。",
    ),
    "engines.models": ("Models", "模型"),
    "engines.no_models": ("none taken yet", "尚未选用"),
    "engines.ready": ("ready", "就绪"),
    "engines.trouble": ("cannot be called", "无法调用"),
    "engines.add_title": ("## Add a remote engine", "## 添加远程引擎"),
    "engines.add": ("Add engine", "添加引擎"),
    "engines.ask": ("Ask what it offers", "查询可用模型"),
    "engines.model": ("Model", "模型"),
    "engines.take": ("Take this model", "选用此模型"),
    "engines.remove": ("Remove engine", "移除引擎"),
    "engines.added": (
        "{name} was added. Ask what it offers: that shows whether address and key are right.",
        "已添加 {name}。请查询可用模型,以确认地址和密钥正确。",
    ),
    "engines.offers": ("It answered and offers {n|model|models}.", "已应答,提供 {n} 个模型。"),
    "engines.taken": (
        "{name} can now be chosen on the Compare page.",
        "现在可在比较页面选择 {name}。",
    ),
    "engines.removed": (
        "{name} was removed. Its answers stay; add it again to use it.",
        "已移除 {name}。其回答保留;如需使用请重新添加。",
    ),
    "problem.engine_url": (
        "This is no base URL that can be used. Write it as https://host/v1 or http://host:port/v1: no user name, no query, no spaces and only plain letters.",
        "此基础地址无法使用。请写成 https://host/v1 或 http://host:port/v1:不含用户名、查询参数、空格,仅限普通字母。",
    ),
    "problem.engine_host": (
        "{host} is not among the hosts this server may call. Whoever runs it can add {entry} to the setting engine_hosts and start it again.",
        "{host} 不在本服务器可调用的主机列表中。运行者可将 {entry} 加入 engine_hosts 设置并重新启动。",
    ),
    "problem.engine_address": (
        "{host} leads to an address inside a network, which is called only where it is named with its port. If that server is meant, whoever runs Whetstone can add {entry} to the setting engine_hosts and start it again.",
        "{host} 指向内网地址,只有连同端口列出时才会被调用。如确需使用,运行者可将 {entry} 加入 engine_hosts 设置并重新启动。",
    ),
    "problem.engine_never": (
        "{host} is or leads to an address that is never called, and no setting changes that: of a cloud's metadata service, of the link itself, or of no single machine. Give the engine another address.",
        "{host} 是或指向永不调用的地址(云元数据服务、链路本地或非单机地址),任何设置都无法更改。请为引擎换一个地址。",
    ),
    "problem.engine_was_started": (
        "The engine had stopped and was started again at {time}.",
        "引擎曾停止,已于 {time} 重新启动。",
    ),
    "problem.engine_was_ended": (
        "The engine had stopped (exit code {exit}) and was started again at {time}.",
        "引擎曾停止(退出码 {exit}),已于 {time} 重新启动。",
    ),
    "problem.engine_gone": (
        "The engine {name} was removed. Choose another model.",
        "引擎 {name} 已移除,请选择其他模型。",
    ),
    "problem.engine_name": (
        "A name has 1 to 40 letters, digits, spaces, dots or hyphens, and begins with a letter or digit.",
        "名称为 1 到 40 个字母、数字、空格、点或连字符,以字母或数字开头。",
    ),
    "problem.engine_context": (
        "The context must be between 256 and {most} tokens.",
        "上下文必须在 256 到 {most} 个词元之间。",
    ),
    "problem.engine_taken": (
        "There is already an engine named {name}. Choose another name.",
        "已有名为 {name} 的引擎,请换一个名称。",
    ),
    "problem.engine_model": (
        "Choose a model, or type its name as the engine knows it.",
        "请选择模型,或输入引擎所用的模型名称。",
    ),
    "problem.key_reference": (
        "Say where the key stands, not the key itself: env:NAME_API_KEY for an environment variable whose name ends in _API_KEY, or file:name for a file in the folder secrets of the data folder.",
        "请填写密钥所在位置,而非密钥本身:env:NAME_API_KEY 表示以 _API_KEY 结尾的环境变量,file:name 表示数据文件夹下 secrets 文件夹中的文件。",
    ),
    "problem.no_key": (
        "There is no key in {name}. Set it where Whetstone is started, then try again.",
        "{name} 中没有密钥。请在启动 Whetstone 的地方设置后重试。",
    ),
    "problem.bad_key": (
        "What {name} holds is no key: it has spaces or unusual characters.",
        "{name} 中的内容不是密钥:含有空格或异常字符。",
    ),
    "problem.open_key": (
        "The file {name} in the folder secrets can be read by others. Run chmod 600 on it, then try again.",
        "secrets 文件夹中的文件 {name} 可被他人读取。请执行 chmod 600 后重试。",
    ),
    "problem.refused_key": (
        "The engine refused the key. An admin should check where the key stands.",
        "引擎拒绝了该密钥。请管理员检查密钥所在位置。",
    ),
    "problem.resting": (
        "The engine rests while a model is trained on its GPU. Ask again when the job is over.",
        "引擎在其 GPU 训练模型期间暂停。请在任务结束后再试。",
    ),
}
