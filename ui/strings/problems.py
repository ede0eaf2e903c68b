"""Errors of activities, by their code. {names} are the error's values."""

STRINGS = {
    "problem.signed_out": ("Your session has ended. Sign in again.", "您的登录已失效,请重新登录。"),
    "problem.disabled": (
        "This account is disabled. Ask an admin to enable it again.",
        "此账号已停用,请联系管理员重新启用。",
    ),
    "problem.denied": (
        "Your role is {role}; this needs the role {roles}. Ask an admin if you should have it.",
        "您的角色是 {role},此操作需要 {roles}。如有需要请联系管理员。",
    ),
    "problem.wrong_password": ("The name or the password is not right.", "姓名或密码不正确。"),
    "problem.too_many_attempts": (
        "Too many attempts to sign in. Try again in {seconds} seconds.",
        "登录尝试次数过多,请在 {seconds} 秒后重试。",
    ),
    "problem.link_used": (
        "This link has been used or is older than 72 hours. Ask an admin for a new one.",
        "此链接已被使用或超过 72 小时,请向管理员索取新链接。",
    ),
    "problem.short_password": (
        "The password needs at least {least} characters; this one has {found}. Four unrelated words are easy to remember.",
        "密码至少需要 {least} 个字符,当前为 {found} 个。四个不相关的词很好记。",
    ),
    "problem.long_password": ("The password may have at most {most} characters.", "密码最多 {most} 个字符。"),
    "problem.weak_password": (
        "This password repeats a few characters or your name and is easy to guess. Choose another one.",
        "此密码重复了少数字符或您的姓名,容易被猜到,请换一个。",
    ),
    "problem.different_passwords": ("The two passwords differ. Type both again.", "两次输入的密码不一致,请重新输入。"),
    "problem.name_taken": (
        "There is already a person named {name}. Choose another name.",
        "已有名为 {name} 的人员,请换一个名字。",
    ),
    "problem.person_disabled": ("{name} is disabled. Enable the account first.", "{name} 已停用,请先启用该账号。"),
    "problem.no_person": ("Choose a person from the list first.", "请先从列表中选择一个人员。"),
    "problem.last_admin": (
        "{name} is the last active admin. Make somebody else an admin first.",
        "{name} 是最后一位有效管理员,请先任命另一位管理员。",
    ),
    "problem.no_role": ("Choose a role: annotator, engineer or admin.", "请选择角色:标注员、工程师或管理员。"),
    "problem.bad_name": (
        "A name has 1 to {most} visible characters. It is what the person types to sign in.",
        "姓名为 1 到 {most} 个可见字符,用于登录。",
    ),
    "problem.busy": (
        "The database is busy or full. Nothing was saved; try again.",
        "数据库繁忙或已满。未保存任何内容,请重试。",
    ),
    "problem.same_demonstration": (
        "The bank has this demonstration already: number {id}.",
        "示例库中已有相同的示例:编号 {id}。",
    ),
    "problem.long_tag": ("A tag has at most {most} characters.", "标记最多 {most} 个字符。"),
    "problem.bad_alias": (
        '"{alias}" cannot be an alias: 1 to 40 lower-case letters, digits, dots, hyphens or underscores, not only digits, not latest.',
        "“{alias}”不能作为别名:请使用 1 到 40 个小写字母、数字、点、连字符或下划线;不能只有数字,也不能是 latest。",
    ),
    "problem.bad_comment": (
        "A comment has 1 to {most} characters; this one has {n}.",
        "评论需有 1 到 {most} 个字符,当前为 {n} 个。",
    ),
    "problem.foreign_comment": ("This comment is somebody else's.", "这是他人的评论。"),
    "problem.rows_many": (
        "Row {row}: a template has at most {most} rows. Delete some.",
        "第 {row} 行:一个模板最多 {most} 行,请删除一些。",
    ),
    "problem.rows_last": (
        "Row {row}: the model answers the last row, so that must be a user row or the place of the case's turns. Add one.",
        "第 {row} 行:模型回答的是最后一行,因此最后一行必须是用户行或用例对话的位置,请添加。",
    ),
    "problem.rows_role": (
        'Row {row}: there is no role "{role}". Use {known}.',
        "第 {row} 行:没有角色“{role}”,请使用 {known}。",
    ),
    "problem.rows_place": (
        "Row {row}: row {first} is this place already. Delete one of the two.",
        "第 {row} 行:第 {first} 行已是此位置,请删除其中一行。",
    ),
    "problem.rows_system": (
        "Row {row}: a template has one system row at most, and it stands first. Move it, or join its text with the first.",
        "第 {row} 行:一个模板最多有一个系统行,且必须在最前。请移动此行,或将其文本并入第一行。",
    ),
    "problem.rows_empty": (
        "Row {row}: the {role} row is empty. Write its text, or delete the row.",
        "第 {row} 行:此行({role})为空,请填写文本或删除此行。",
    ),
    "problem.rows_marker": (
        "Row {row}: {{demonstrations}} may stand in the last row only. Add a row for the demonstrations instead.",
        "第 {row} 行:{{demonstrations}} 只能出现在最后一行,请改为添加“示例”行。",
    ),
    "problem.rows_unasked": (
        "The last row came out empty, so there is nothing to answer. Give the case a value for it, or a conversation.",
        "最后一行填充后为空,没有可回答的内容。请为用例填写相应的值或对话。",
    ),
    "problem.rows_as_text": (
        "Demonstrations that are written in the last row need a user row at the end. Add one, or write them as turns.",
        "写在最后一行中的示例需要以用户行结尾。请添加用户行,或将示例写为对话轮次。",
    ),
    "problem.row_gives_away": (
        "Row {row} asks what this case asks, and the row after it answers. Take them out of the template, or test it with other cases.",
        "第 {row} 行与此用例的问题相同,且下一行给出了答案。请从模板中删除这两行,或使用其他用例。",
    ),
    "problem.token_name": ("A token needs a name of 1 to {most} characters.", "令牌名称需有 1 到 {most} 个字符。"),
}
