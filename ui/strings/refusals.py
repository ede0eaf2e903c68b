"""What engines, settings, few-shot choices and templates refuse, by code. A template's line is put before its sentence."""

STRINGS = {
    "problem.line": ("Line {line}: {problem}", "第 {line} 行:{problem}"),
    "problem.bad_token": (
        "This token is not known here, or was revoked. Send a header: Authorization: Bearer wst_…",
        "此令牌未知或已撤销。请发送请求头:Authorization: Bearer wst_…",
    ),
    "problem.no_version": (
        'There is no version "{version}" of a template "{name}" in this project. A version is its number, an alias, or latest.',
        "此项目没有模板“{name}”的版本“{version}”。版本为编号、别名或 latest。",
    ),
    "problem.no_model": (
        'There is no model "{name}". Use live, base, or model- with its number.',
        "没有模型“{name}”。请用 live、base 或 model- 加编号。",
    ),
    "problem.no_engine_of_model": (
        '"{name}" stands for answers that were imported: no engine answers for it. Use another model.',
        "“{name}”仅代表导入的回答,没有引擎为其作答。请使用其他模型。",
    ),
    "problem.unknown_values": (
        "The template has no variable {names}. It has: {known}.",
        "模板没有变量 {names}。可用:{known}。",
    ),
    # engines
    "problem.engine_unreadable": ("The engine sent an answer that cannot be read.", "引擎返回了无法读取的回答。"),
    "problem.engine_cut_off": (
        "The engine stopped in the middle of an answer. Ask again.",
        "引擎在回答中途停止,请重试。",
    ),
    "problem.engine_restarted": ("The engine was started again meanwhile. Ask again.", "引擎刚刚重新启动,请重试。"),
    "problem.engine_silent": (
        "The engine runs but does not answer. Try again in a moment: one that stays so is ended and started again.",
        "引擎正在运行但没有应答。请稍后重试:若持续如此,将结束并重新启动它。",
    ),
    "problem.engine_slow": (
        "The engine took too long to answer. Ask for fewer tokens, or try again when it is less busy.",
        "引擎回答超时。请减少词元数,或等引擎空闲时再试。",
    ),
    "problem.engine_ended": (
        "The engine ended while it answered. It is started again when it is next asked: ask again.",
        "引擎在回答时退出。下次请求时会重新启动,请重试。",
    ),
    "problem.engine_unreachable": (
        "The engine cannot be reached: it has stopped or is starting. Try again in a moment.",
        "无法连接引擎:它已停止或正在启动。请稍后重试。",
    ),
    "problem.engine_broke_off": (
        "The engine cannot be reached, or broke off. Try again in a moment.",
        "无法连接引擎,或连接中断。请稍后重试。",
    ),
    "problem.engine_starting": (
        "Another process is starting the engine and has not finished. Try again in a moment.",
        "另一个进程正在启动引擎,尚未完成。请稍后重试。",
    ),
    "problem.engine_compressed": (
        "The engine sent a compressed answer although it was asked not to. It is not read.",
        "引擎不顾要求返回了压缩的回答,未予读取。",
    ),
    "problem.engine_large": (
        "The engine's answer is larger than 10 MB. It is not read.",
        "引擎的回答超过 10 MB,未予读取。",
    ),
    "problem.engine_removed": (
        "This engine was removed meanwhile. Choose another model.",
        "此引擎已被移除,请选择其他模型。",
    ),
    "problem.engine_elsewhere": (
        "The engine sent us elsewhere, which is not followed. Give its final address.",
        "引擎要求跳转到别处,不予跟随。请填写其最终地址。",
    ),
    "problem.engine_no_answer": (
        "The engine gave no whole answer (it says: {reason}). Ask something else.",
        "引擎没有给出完整的回答(原因:{reason})。请换个问题。",
    ),
    # settings of a job
    "problem.setting_unknown": ("There is no setting '{name}'. Known: {known}.", "没有设置“{name}”。可用:{known}。"),
    "problem.setting_choice": (
        "'{name}' must be one of {known}, not {value}.",
        "“{name}”须为 {known} 之一,不能是 {value}。",
    ),
    "problem.setting_whole": ("'{name}' must be a whole number, not {value}.", "“{name}”须为整数,不能是 {value}。"),
    "problem.setting_number": ("'{name}' must be a number, not {value}.", "“{name}”须为数字,不能是 {value}。"),
    "problem.setting_range": (
        "'{name}' must be between {low} and {high}, not {value}.",
        "“{name}”须在 {low} 到 {high} 之间,不能是 {value}。",
    ),
    "problem.setting_long": (
        "'{name}' has {count} characters; {most} are the most.",
        "“{name}”有 {count} 个字符,最多 {most} 个。",
    ),
    "problem.setting_pattern": (
        "'{name}' must be like '{example}' or empty, not '{value}'.",
        "“{name}”须形如 '{example}' 或留空,不能是 '{value}'。",
    ),
    "problem.setting_switch": (
        "'{name}' must be true or false, not {value}.",
        "“{name}”须为 true 或 false,不能是 {value}。",
    ),
    "problem.settings_kl": (
        (
            "'kl_penalty' loss cannot go with 'kl_estimator' k1: on sampled tokens the gradient of k1 has mean zero, "
            "so nothing would hold the policy. Choose k2, or charge it in the reward."
        ),
        "'kl_penalty' 为 loss 时不能使用 'kl_estimator' k1:在采样的词元上 k1 的梯度均值为零,无法约束策略。请选 k2,或改为在奖励中扣除。",
    ),
    "problem.settings_warmup": (
        (
            "'value_warmup_steps' is {warmup} and the run has {steps} steps: the policy would never be trained. "
            "Lower it, or raise 'total_episodes'."
        ),
        "'value_warmup_steps' 为 {warmup},而训练只有 {steps} 步:策略将得不到训练。请调低它,或提高 'total_episodes'。",
    ),
    "problem.settings_reliability": (
        "'reliability' set to estimated gives shares, in which a tie is half. Set 'ties' to half, or 'reliability' to off.",
        "'reliability' 为 estimated 时得到的是份额,其中平局算一半。请将 'ties' 设为 half,或将 'reliability' 设为 off。",
    ),
    "problem.settings_margin": (
        (
            "'strength_margin' has no meaning with 'ties' set to model, which learns a margin of its own. "
            "Set 'strength_margin' to 0, or 'ties' to half or drop."
        ),
        "'ties' 为 model 时会自行学习间隔,'strength_margin' 没有意义。请将 'strength_margin' 设为 0,或将 'ties' 设为 half 或 drop。",
    ),
    "problem.settings_batch": (
        (
            "'batch_size' is {batch}, and each prompt has 'num_generations' {answers} answers, so a step cannot have so many. "
            "Set 'batch_size' to a multiple of them, such as {near}."
        ),
        "'batch_size' 为 {batch},而每个提示有 'num_generations' 即 {answers} 个回答,一步无法恰好取这么多。请将 'batch_size' 设为其倍数,例如 {near}。",
    ),
    "problem.settings_smoothing": (
        (
            "'label_smoothing' has no meaning with 'loss_type' set to ipo, whose margin is finite by itself. "
            "Set 'label_smoothing' to 0, or 'loss_type' to sigmoid."
        ),
        "'loss_type' 为 ipo 时间隔本来就有限,'label_smoothing' 没有意义。请将 'label_smoothing' 设为 0,或将 'loss_type' 设为 sigmoid。",
    ),
    "problem.weights_twice": (
        "'annotator_weights' names {name} twice. Give each person one weight.",
        "'annotator_weights' 中 {name} 出现了两次。每人只能有一个权重。",
    ),
    "problem.weights_unknown": (
        "'annotator_weights' names {name}, and nobody has that name. Write names as the People page has them.",
        "'annotator_weights' 中的 {name} 无此人。请按人员页面上的名字填写。",
    ),
    "problem.weights_none": (
        "'annotator_weights' leaves no judgement. Give somebody who judged a weight above 0.",
        "按 'annotator_weights' 没有剩下任何评判。请给做过评判的人大于 0 的权重。",
    ),
    # few-shot
    "problem.few_shot_k": (
        "k is {value}; it must be a whole number from 0 to {most}.",
        "k 为 {value},须为 0 到 {most} 的整数。",
    ),
    "problem.few_shot_seed": ("seed is {value}; it must be a whole number.", "种子为 {value},须为整数。"),
    "problem.few_shot_ids": ("ids must be whole numbers, each of them once.", "编号须为整数,且不得重复。"),
    "problem.few_shot_base": (
        "base is {value}; it must be 64 hexadecimal digits, or empty.",
        "base 为 {value},须为 64 位十六进制数或留空。",
    ),
    "problem.few_shot_choice": (
        "{name} is {value}; it must be one of {known}.",
        "{name} 为 {value},须为 {known} 之一。",
    ),
    "problem.few_shot_unknown": (
        "few_shot has no setting {names}. It knows {known}.",
        "few_shot 没有设置 {names}。可用:{known}。",
    ),
    "problem.few_shot_missing": (
        "The template names demonstrations that are not in the bank: {ids}. Take them out of the template, or add them again.",
        "模板引用了示例库中没有的示例:{ids}。请将其从模板中去掉,或重新添加。",
    ),
    "problem.few_shot_labels": (
        "Balanced choosing needs labels, and no demonstration has one. Label them or choose nearest.",
        "均衡选取需要标签,但没有示例带有标签。请为示例加标签,或选用最近邻。",
    ),
    # templates
    "problem.template_undefined": (
        'the variable "{name}" has no value. Give it one, or take {{{name}}} out of the template.',
        "变量“{name}”没有值。请赋值,或将 {{{name}}} 从模板中去掉。",
    ),
    "problem.template_grows": (
        "the prompt grows beyond {most} characters. Shorten it.",
        "提示超过 {most} 个字符,请缩短。",
    ),
    "problem.template_unfilled": ("this cannot be filled in: {error}.", "此处无法填充:{error}。"),
    "problem.template_no_name": (
        "{error}. Check the name, or give it a default.",
        "{error}。请检查名称,或给出默认值。",
    ),
    "problem.template_syntax": (
        "{error}. To write braces as they are, use mode plain or {% raw %}.",
        "{error}。若要原样书写花括号,请用 plain 模式或 {% raw %}。",
    ),
    "problem.template_deep": (
        "The template is nested too deeply or holds a number too long. Simplify it.",
        "模板嵌套过深或含有过长的数字,请简化。",
    ),
    "problem.template_parts": (
        "The template has more than {most} parts. Shorten it.",
        "模板超过 {most} 个部分,请缩短。",
    ),
    "problem.template_nested": ("this is nested too deeply. Simplify it.", "此处嵌套过深,请简化。"),
    "problem.template_loops": (
        "loops may be nested {most} deep. Flatten the list first.",
        "循环最多嵌套 {most} 层。请先展平列表。",
    ),
    "problem.template_steps": (
        "the loops take more than {most} steps. Shorten the lists.",
        "循环超过 {most} 步,请缩短列表。",
    ),
    "problem.template_work": (
        "filling this in takes too much work. Shorten the values or use fewer filters.",
        "填充的计算量过大。请缩短值或减少过滤器。",
    ),
    "problem.template_no_text": (
        "this cannot be written as text. Only texts, numbers, lists and tables can.",
        "此处无法写成文字。只有文字、数字、列表和表可以。",
    ),
    "problem.template_text_grows": (
        "a text grows beyond {most} characters here. Shorten it.",
        "此处的文字超过 {most} 个字符,请缩短。",
    ),
    "problem.template_no_list": (
        "a loop needs a list; this is of the kind {kind}.",
        "循环需要列表;此处的类型为 {kind}。",
    ),
    "problem.template_long_list": ("a list may have {most} items.", "列表最多 {most} 项。"),
    "problem.template_indent": ("tojson takes an indent of 0 to 8.", "tojson 的缩进为 0 到 8。"),
    "problem.template_refused": (
        "{name} cannot be used in a template. Conditions, loops and filters can.",
        "模板中不能使用 {name}。可用条件、循环和过滤器。",
    ),
    "problem.template_hidden_name": (
        'the name "{name}" is not available. Choose another.',
        "名称“{name}”不可用,请换一个。",
    ),
    "problem.template_hidden_field": ('the field "{name}" is not available.', "字段“{name}”不可用。"),
    "problem.template_number": ("this number is too large.", "此数字过大。"),
    "problem.template_recursive": ("a loop cannot be recursive.", "循环不能递归。"),
    "problem.template_no_filter": (
        'there is no filter "{name}". There are: {known}.',
        "没有过滤器“{name}”。可用:{known}。",
    ),
    "problem.template_no_test": ('there is no test "{name}". There are: {known}.', "没有测试“{name}”。可用:{known}。"),
    "problem.template_unpacked": (
        "arguments cannot be unpacked with *. Write them one by one.",
        "参数不能用 * 展开,请逐个书写。",
    ),
    "problem.template_mode": (
        'There is no template mode "{mode}". Choose "plain" or "logic".',
        "没有模板模式“{mode}”。请选 plain 或 logic。",
    ),
    "problem.template_bytes": (
        "The template has {size} bytes; at most {most} are allowed. Shorten it.",
        "模板有 {size} 字节,最多 {most} 字节。请缩短。",
    ),
    "problem.template_marker": (
        "{{demonstrations}} marks the place of the demonstrations; put it on a line of its own, once.",
        "{{demonstrations}} 标记示例的位置;请让它独占一行,且只出现一次。",
    ),
    "problem.prompt_characters": (
        "The prompt has {size} characters; at most {most} are allowed. Shorten its values.",
        "提示有 {size} 个字符,最多 {most} 个。请缩短其中的值。",
    ),
    "problem.half_in_template": (
        "The template holds half of a character pair that cannot be stored. Type or paste the text again.",
        "模板含有无法存储的半个字符,请重新输入或粘贴。",
    ),
    "problem.half_in_value": (
        'The value of "{name}" holds half of a character pair that cannot be stored. Type or paste the text again.',
        "“{name}”的值含有无法存储的半个字符,请重新输入或粘贴。",
    ),
    "problem.value_large": (
        'The value of "{name}" is larger than {most} KB. Shorten it.',
        "“{name}”的值超过 {most} KB,请缩短。",
    ),
    "problem.value_digits": (
        'The number in "{name}" has too many digits. Give it as a text.',
        "“{name}”中的数字位数过多,请改为文字。",
    ),
    "problem.value_kind": (
        (
            'The value of "{name}" is of a kind that cannot be written ({kind}). '
            "Give a text, a number, or a list or table of them at most 8 deep."
        ),
        "“{name}”的值的类型无法写出({kind})。请给出文字、数字,或最多 8 层的列表或表。",
    ),
    "problem.value_not_plain": (
        'The value of "{name}" is a {kind}; a plain template takes texts and numbers. Give a text, or switch the template to "logic".',
        "“{name}”的值是 {kind};plain 模板只接受文字和数字。请给出文字,或将模板切换为 logic。",
    ),
    "problem.rows_bytes": (
        "The rows have {size} bytes; at most {most} are allowed. Shorten them.",
        "各行共 {size} 字节,最多 {most} 字节。请缩短。",
    ),
    "problem.rows_characters": (
        "The rows come to more than {most} characters. Shorten them or the values.",
        "各行合计超过 {most} 个字符。请缩短各行或值。",
    ),
    # prompts
    "problem.prompt_k": ("k is {value}; it cannot be below 0.", "k 为 {value},不能小于 0。"),
    "problem.prompt_asks_nothing": (
        "The prompt asks nothing. Give the template a body, or the case a conversation.",
        "提示没有提出任何问题。请填写模板正文,或为用例加入对话。",
    ),
    "problem.prompt_no_input": (
        (
            "Demonstrations take the place of {{input}}, and the template does not use it. "
            "Name the variable of the case {{input}}, or set k to 0."
        ),
        "示例会代入 {{input}},但模板没有使用它。请将用例的变量命名为 {{input}},或将 k 设为 0。",
    ),
    "problem.prompt_role": (
        'A turn has the role "{role}". Use system, user or assistant.',
        "某轮对话的角色为“{role}”。请使用 system、user 或 assistant。",
    ),
    "problem.prompt_budget": (
        (
            "Instruction and case alone need {tokens} tokens; the limit is {limit}. "
            "Shorten them, or use a model with a longer context."
        ),
        "仅指令与用例就需要 {tokens} 个词元,上限为 {limit}。请缩短,或改用上下文更长的模型。",
    ),
    "problem.prompt_answer_room": (
        "An answer of up to {tokens} tokens leaves no room for a prompt: the model takes {context} in all. Ask for fewer.",
        "最多 {tokens} 个词元的回答没有给提示留下位置:该模型总共只能容纳 {context} 个。请减少回答的词元数。",
    ),
    **{
        f"problem.token_in_{place}": (
            f"{english} holds {{token}}, which the model reads as a control token. Remove it or write it differently.",
            f"{chinese}含有 {{token}},模型会将其视为控制词元。请去掉,或换一种写法。",
        )
        for place, english, chinese in (
            ("value", 'The value of "{name}"', "“{name}”的值"),
            ("turn", "Turn {name} of the conversation", "第 {name} 轮对话"),
            ("input", "The input of demonstration {name}", "第 {name} 个示例的输入"),
            ("output", "The output of demonstration {name}", "第 {name} 个示例的输出"),
        )
    },
    "problem.row_text": ("Row {row}: {problem}", "第 {row} 条消息:{problem}"),
    "problem.row_line": ("Row {row}, line {line}: {problem}", "第 {row} 条消息第 {line} 行:{problem}"),
}
