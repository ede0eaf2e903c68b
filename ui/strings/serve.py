"""The serving tab of the build page."""

STRINGS = {
    "build.tab.serve": ("Serve", "调用"),
    "serve.version": ("Version that is asked", "调用的版本"),
    "serve.name": ("Token for", "令牌用途"),
    "serve.keeps": ("Keep answers, so that they can be judged", "保存回答以供评判"),
    "serve.make": ("Make a token", "创建令牌"),
    "serve.secret": ("The token", "令牌"),
    "serve.secret_hint": (
        "Copy it now: only its hash is stored, so it is shown this once.",
        "请立即复制:系统只保存其哈希值,令牌仅显示这一次。",
    ),
    "serve.made": ("The token “{name}” works from now on.", "令牌“{name}”已可使用。"),
    "serve.revoked": ("The token is revoked.", "令牌已吊销。"),
    "serve.copy": ("Copy", "复制"),
    "serve.more": (
        "Also taken: model (live, base, model-12), temperature (0), top_p, max_tokens (96), seed, conversation.",
        "还可设置:model(live、base、model-12)、temperature(0)、top_p、max_tokens(96)、seed、conversation。",
    ),
    "serve.remote": ("Models of remote engines: {models}.", "远程引擎的模型:{models}。"),
    "serve.tokens": ("Tokens of this project", "此项目的令牌"),
    "serve.none": ("No token yet.", "还没有令牌。"),
    "serve.act": ("Revoke", "吊销"),
    "serve.revoke": ("Revoke", "吊销"),
    "serve.ends_in": ("Ends in", "末尾"),
    "serve.answers": ("Answers", "回答"),
    "serve.kept": ("kept", "保存"),
    "serve.created": ("Made", "创建时间"),
    "serve.used": ("Last used", "最近使用"),
}
