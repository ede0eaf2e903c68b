"""What several pages of engineers and admins share."""

STRINGS = {
    "pick.project": ("Project", "项目"),
    "pick.case": ("Case", "用例"),
    "pick.find_case": ("Find a case", "查找用例"),
    "pick.live": ("live", "已上线"),
    "pick.the_app": ("the app", "系统"),
    "role_of.system": ("System", "系统"),
    "role_of.user": ("User", "用户"),
    "role_of.assistant": ("Assistant", "助手"),
}
