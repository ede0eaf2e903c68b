"""The rows of a chat template on the build page."""

STRINGS = {
    "build.kind": ("Form", "形式"),
    "build.kind.text": ("text", "文本"),
    "build.kind.chat": ("chat", "对话"),
    "build.rows": ("Rows", "对话行"),
    "rows.label": ("Rows: the model answers the last one", "对话行:模型回答最后一行"),
    "rows.row": ("Row", "第几行:"),
    "rows.role": ("Role", "角色"),
    "rows.up": ("Move up", "上移"),
    "rows.down": ("Move down", "下移"),
    "rows.drag": ("Drag to another place", "拖动到其他位置"),
    "rows.add": ("Add a row", "添加一行"),
    "rows.delete": ("Delete", "删除"),
    "rows.undo": ("Undo delete", "撤销删除"),
    "rows.hint": (
        "Drag a number, or Alt and an arrow, to move a row. {{input}} is filled from the case.",
        "拖动行号,或按 Alt 与方向键移动。{{input}} 由用例填充。",
    ),
    "rows.role.system": ("System", "系统"),
    "rows.role.user": ("User", "用户"),
    "rows.role.assistant": ("Assistant", "助手"),
    "rows.role.demonstrations": ("Demonstrations", "示例"),
    "rows.role.turns": ("Turns of the case", "用例的对话"),
    "rows.place.demonstrations": (
        "The demonstrations go here, each as a user and an assistant turn in the form of the last row.",
        "示例放在这里,每个示例按最后一行的格式写成一轮用户与助手的对话。",
    ),
    "rows.place.turns": ("The earlier turns of the case go here.", "用例中先前的对话放在这里。"),
}
