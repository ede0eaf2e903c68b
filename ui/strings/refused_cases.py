"""What the checks and cases of a suite are refused for, by code. The place in the text is put before the sentence."""

STRINGS = {
    "problem.at": ("{at}: {problem}", "{at}:{problem}"),
    "problem.at_check": ("Check {number}", "第 {number} 项检查"),
    "problem.at_check_type": ("Check {number} ({type})", "第 {number} 项检查({type})"),
    "problem.at_line": ("Line {number}", "第 {number} 行"),
    "problem.at_line_type": ("Line {number} ({type})", "第 {number} 行({type})"),
    "problem.at_line_field": ("Line {number}, {field}", "第 {number} 行 {field}"),
    "problem.at_line_field_type": ("Line {number}, {field} ({type})", "第 {number} 行 {field}({type})"),
    # checks
    "problem.checks_many": (
        "A suite takes at most {most} checks; there are {n}. Leave some out.",
        "一个测试集最多 {most} 项检查,现有 {n} 项。请去掉一些。",
    ),
    "problem.check_no_table": (
        'this is no table. Write it as {"type": "contains", "value": "..."}.',
        '这不是表。请写成 {"type": "contains", "value": "..."}。',
    ),
    "problem.check_setting": (
        "it has no setting {names}. It knows {known}.",
        "没有设置 {names}。可用:{known}。",
    ),
    "problem.check_unknown": (
        'there is no check "{name}". Choose one of {known}.',
        "没有检查“{name}”。可选:{known}。",
    ),
    "problem.check_line": (
        'there is no check "{name}". Write name:value; names are {known}.',
        "没有检查“{name}”。请写成“名称:值”,名称为:{known}。",
    ),
    "problem.check_near": (
        'there is no check "{name}". Is "{near}" meant? To compare with the text itself write equals:{text}',
        "没有检查“{name}”。是否指“{near}”?若要与文字本身比较,请写 equals:{text}",
    ),
    "problem.check_text": (
        'there is no check "{name}". To compare with the text itself write equals:{text}',
        "没有检查“{name}”。若要与文字本身比较,请写 equals:{text}",
    ),
    "problem.check_code": (
        '"{name}" is code, and code is never run here. Write the check with one of ours.',
        "“{name}”是代码,这里从不运行代码。请改用内置的检查。",
    ),
    "problem.check_weight": (
        "weight is {value}; it must not be below 0.",
        "weight 为 {value},不得小于 0。",
    ),
    "problem.check_number": ("{name} is {value}; it must be a number.", "{name} 为 {value},须为数字。"),
    "problem.check_no_number": ("{value} is no number.", "{value} 不是数字。"),
    "problem.check_value": ("the value is {value}; it must be {asks}.", "值为 {value},须为{asks}。"),
    "problem.check_template": ("{problem}", "{problem}"),
    "problem.check_no_json": ("no JSON: {error} at column {column}.", "不是 JSON:第 {column} 列,{error}。"),
    "problem.asks_text": ("a text", "文字"),
    "problem.asks_expected": (
        "a text, or nothing: the expected answer of the case",
        "文字,或留空:即用例的预期回答",
    ),
    "problem.asks_several": ("a list of texts, or texts with commas between", "文字的列表,或以逗号分隔的文字"),
    "problem.asks_limit": ('a number, or {"min": ..., "max": ...}', '数字,或 {"min": ..., "max": ...}'),
    "problem.asks_pattern": ("a regular expression", "正则表达式"),
    "problem.asks_milliseconds": ("a number of milliseconds, or a threshold", "毫秒数,或以阈值代替"),
    "problem.asks_number": ("a number, or a threshold", "数字,或以阈值代替"),
    "problem.asks_expected_number": (
        "a number, or nothing: the expected answer of the case",
        "数字,或留空:即用例的预期回答",
    ),
    "problem.asks_schema": ("a JSON schema, or nothing", " JSON schema,或留空"),
    "problem.asks_table": (
        "a table, or nothing: the expected answer of the case",
        "表,或留空:即用例的预期回答",
    ),
    "problem.asks_list": (
        "a list, or nothing: the expected answer of the case",
        "列表,或留空:即用例的预期回答",
    ),
    "problem.asks_reward_model": (
        "the name of a reward model, or nothing: the live one",
        "奖励模型的名称,或留空:即当前使用的奖励模型",
    ),
    "problem.asks_rubric": ("a rubric: what a good answer does", "评分标准:说明好的回答应做到什么"),
    # cases
    "problem.cases_size": (
        "The cases have more than {most} MB. Paste them in parts.",
        "用例超过 {most} MB。请分批粘贴。",
    ),
    "problem.cases_file_size": (
        "{name} has more than {most} MB. Give it in parts.",
        "{name} 超过 {most} MB。请分批提供。",
    ),
    "problem.cases_none": (
        "There are no cases. Give CSV with a header, one JSON table per line, or a list of tests.",
        "没有用例。请提供带表头的 CSV、每行一个 JSON 表,或测试的列表。",
    ),
    "problem.cases_differ": (
        "the variables differ from those of the first case ({names}).",
        "变量与第一个用例的不同({names})。",
    ),
    "problem.cases_ragged": (
        "{n|field|fields}, but the header has {header}.",
        "有 {n} 个字段,而表头有 {header} 个。",
    ),
    "problem.cases_csv": (
        "{error}. A quote inside a quoted field is written twice.",
        "{error}。引号内的引号须写两次。",
    ),
    "problem.cases_nameless": ("a column has no name.", "有一列没有名称。"),
    "problem.cases_double": ('the column "{name}" is there twice.', "列“{name}”出现了两次。"),
    "problem.cases_no_variable": (
        "there is no variable beside the expected answer.",
        "除预期回答外没有任何变量。",
    ),
    "problem.cases_underscore": (
        'the column "{name}" has one underscore; write _{name}, or name the variable otherwise.',
        "列“{name}”只有一个下划线;请写成 _{name},或为变量另取名称。",
    ),
    "problem.cases_config": (
        '"{name}" sets a threshold for the column {column}, which is not there.',
        "“{name}”为列 {column} 设置阈值,但没有这一列。",
    ),
    "problem.cases_column": (
        'the column "{name}" is not taken. Known are {known}; what stands before or after a prompt belongs into the template.',
        "不接受列“{name}”。可用:{known};提示前后的文字应写在模板中。",
    ),
    "problem.cases_no_json": ("no JSON: {error}.", "不是 JSON:{error}。"),
    "problem.cases_deep": ("no JSON: nested too deeply.", "不是 JSON:嵌套过深。"),
    "problem.cases_no_table": (
        'a case is a table, like {"input": "...", "expected": "..."}.',
        '用例须为表,如 {"input": "...", "expected": "..."}。',
    ),
    "problem.cases_key": (
        '"{name}" is not taken. A test has {known}.',
        "不接受“{name}”。测试可有:{known}。",
    ),
    "problem.cases_value": ('"{name}" must be a text or a number.', "“{name}”须为文字或数字。"),
    "problem.cases_assert": (
        '"assert" must be a list, like [{"type": "contains", "value": "..."}].',
        '"assert" 须为列表,如 [{"type": "contains", "value": "..."}]。',
    ),
    "problem.cases_empty": ("every variable is empty.", "所有变量均为空。"),
    "problem.cases_threshold": ("{value} must lie between 0 and 1.", "{value} 须在 0 到 1 之间。"),
    "problem.cases_again": (
        "the case of line {line} again, with other checks. Keep one of them.",
        "与第 {line} 行是同一用例,但检查不同。请只保留其一。",
    ),
    "problem.cases_ending": (
        '"{name}" is no file of cases. Choose one that ends in {known}.',
        "“{name}”不是用例文件。请选择以 {known} 结尾的文件。",
    ),
    "problem.cases_no_list": (
        "{file}: there is no list of cases, nor one under tests.",
        "{file}:没有用例列表,tests 下也没有。",
    ),
}
