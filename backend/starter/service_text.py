"""The shop's world: what customers ask, what the shop's policy answers, and how an answer may sound, in two languages.

Every question template belongs to one intent. Every intent has one right remedy, told in several wordings that all hold
the same key phrase; no other intent's text holds it. That is what lets a rule read the truth from a text.
"""

from typing import NamedTuple


class Intent(NamedTuple):
    questions: tuple[str, ...]
    remedies: tuple[str, ...]
    key: str
    steps: tuple[str, ...]  # help that goes beyond the remedy


PRODUCTS = {
    "en": "jacket lamp kettle phone backpack chair camera watch printer blender tent guitar sofa keyboard toaster".split(),
    "zh": "外套 台灯 水壶 手机 背包 椅子 相机 手表 打印机 搅拌机 帐篷 吉他 沙发 键盘 烤箱".split(),
}

ENGLISH = {
    "refund": Intent(
        (
            "Can I get a refund for the {product}?",
            "I sent the {product} back, where is my refund?",
            "I want my money for order {order}.",
            "How do I get a refund for order {order}?",
            "The {product} is not for me, can I have a refund?",
            "When is order {order} refunded?",
        ),
        (
            "The money goes back to your card in 5 days.",
            "We pay the price back to your card in 5 days.",
            "You get the full amount back to your card.",
        ),
        "back to your card",
        ("Open the order and press Return.", "Keep the parcel slip until then."),
    ),
    "late": Intent(
        (
            "Where is my {product}?",
            "Order {order} has not come yet.",
            "My {product} is {days} days late.",
            "I have waited {days} days for order {order}.",
            "When does the {product} arrive?",
            "The delivery of order {order} is late.",
        ),
        (
            "Your parcel arrives within two days.",
            "It is on the road and arrives within two days.",
            "The driver is late, it arrives within two days.",
        ),
        "arrives within two days",
        ("The tracking page shows where it is.", "Look for the van in the morning."),
    ),
    "invoice": Intent(
        (
            "I need an invoice for order {order}.",
            "Where is the invoice for my {product}?",
            "Can you send the invoice for order {order}?",
            "There was no invoice with the {product}.",
            "How can I get an invoice for the {product}?",
            "My boss wants the invoice of order {order}.",
        ),
        (
            "The invoice comes as a PDF by email.",
            "You can download the invoice as a PDF.",
            "We mail you the invoice as a PDF.",
        ),
        "as a PDF",
        ("Open the order and press Papers.", "Look in the spam folder too."),
    ),
    "address": Intent(
        (
            "How do I change the address of order {order}?",
            "I moved, send the {product} to a new address.",
            "The address on order {order} is wrong.",
            "Can the {product} go to another address?",
            "I typed the wrong address for the {product}.",
            "Change the address for order {order}.",
        ),
        (
            "You can edit the address until it leaves the warehouse.",
            "The address is open until the parcel leaves the warehouse.",
            "Edit it in the order before it leaves the warehouse.",
        ),
        "leaves the warehouse",
        ("Press Edit beside the street.", "Check the house number twice."),
    ),
    "broken": Intent(
        (
            "The {product} came broken.",
            "My {product} has a crack.",
            "Order {order} arrived broken.",
            "The {product} was damaged in the box.",
            "The new {product} does not switch on.",
            "The {product} in order {order} is damaged.",
        ),
        (
            "You get a free replacement for it.",
            "We send a free replacement today.",
            "A free replacement is on its way.",
        ),
        "free replacement",
        ("Add a photo of the damage.", "Put the old one outside for the driver."),
    ),
    "cancel": Intent(
        (
            "Cancel order {order}.",
            "How can I cancel the {product}?",
            "I want to cancel order {order}.",
            "I no longer want the {product}, can I cancel?",
            "Is it too late to cancel order {order}?",
            "I ordered the {product} twice, cancel one.",
        ),
        (
            "Use the red cancel button in the order.",
            "The red cancel button stops the order.",
            "Press the red cancel button, that is all.",
        ),
        "red cancel button",
        ("You find it under My Orders.", "A note confirms it in a minute."),
    ),
    "password": Intent(
        (
            "I forgot my password.",
            "I cannot log in to buy the {product}.",
            "How do I reset my password?",
            "My password fails since {days} days.",
            "I cannot log in to see order {order}.",
            "The site refuses my password for order {order}.",
        ),
        ("The reset link gives you a new one.", "Use the reset link on the login page.", "We mail you a reset link."),
        "reset link",
        ("It works for one hour.", "Choose at least twelve letters."),
    ),
    "warranty": Intent(
        (
            "Is the {product} under warranty?",
            "How long is the warranty of the {product}?",
            "My {product} stopped after {days} months, is there a warranty?",
            "Does the warranty cover the {product} in order {order}?",
            "What does the warranty of the {product} cover?",
            "Is there still warranty on order {order}?",
        ),
        (
            "Repairs are free for three years.",
            "The maker repairs it for three years.",
            "It is covered for three years.",
        ),
        "for three years",
        ("Keep the receipt with the box.", "The serial number is on the bottom."),
    ),
    "payment": Intent(
        (
            "My payment for order {order} failed.",
            "Why was my payment refused?",
            "The payment for the {product} did not work.",
            "I tried to pay for the {product} {days} times.",
            "The checkout refuses my payment for order {order}.",
            "I cannot pay for the {product}.",
        ),
        ("Try another bank card.", "Pay with another bank card.", "It works with another bank card."),
        "another bank card",
        ("Check the limit of the account.", "Wait ten minutes between two tries."),
    ),
    "coupon": Intent(
        (
            "How do I use my coupon?",
            "The coupon does not work for the {product}.",
            "Can I use a coupon on order {order}?",
            "I forgot to use the coupon for the {product}.",
            "Where do I enter the coupon for the {product}?",
            "My coupon was refused on order {order}.",
        ),
        (
            "Type the code in the last step.",
            "The code goes in the last step.",
            "Enter it in the last step of the basket.",
        ),
        "in the last step",
        ("Use capital letters only.", "One code counts for one basket."),
    ),
    "size": Intent(
        (
            "The {product} is too small.",
            "Can I get the {product} in a bigger size?",
            "The {product} in order {order} does not fit.",
            "I need another size of the {product}.",
            "The {product} is too big for me.",
            "Order {order} has the wrong size.",
        ),
        (
            "We swap it for the other size.",
            "Send it in for the other size.",
            "You can swap it for the other size at no cost.",
        ),
        "for the other size",
        ("Leave the tags on.", "The size table is on the page."),
    ),
    "missing": Intent(
        (
            "A part of the {product} is missing.",
            "There are no screws with the {product}.",
            "Order {order} is not complete.",
            "The cable of the {product} is missing.",
            "The manual of the {product} is missing.",
            "One item of order {order} is missing.",
        ),
        (
            "We post the missing piece tomorrow.",
            "The missing piece is posted tomorrow.",
            "You get the missing piece by mail.",
        ),
        "missing piece",
        ("Look under the foam first.", "Tell us the number on the list."),
    ),
}

CHINESE = {
    "refund": Intent(
        (
            "{product}可以退款吗？",
            "{product}已经寄回，退款在哪里？",
            "订单{order}我要退款。",
            "订单{order}怎么退款？",
            "{product}不合适，能退款吗？",
            "订单{order}什么时候退款？",
        ),
        ("款项五天内原路退回。", "全部金额会原路退回。", "钱会在五天内原路退回。"),
        "原路退回",
        ("打开订单点退货。", "保留好寄件单。"),
    ),
    "late": Intent(
        (
            "我的{product}到哪里了？",
            "订单{order}还没有到。",
            "{product}晚了{days}天。",
            "订单{order}我等了{days}天。",
            "{product}什么时候到？",
            "订单{order}送得太慢。",
        ),
        ("包裹两天内送到。", "已经在路上，两天内送到。", "司机晚了，两天内送到。"),
        "两天内送到",
        ("物流页可以看到位置。", "早上留意送货车。"),
    ),
    "invoice": Intent(
        (
            "订单{order}需要发票。",
            "{product}的发票在哪里？",
            "能发订单{order}的发票吗？",
            "{product}里没有发票。",
            "{product}怎么开发票？",
            "公司要订单{order}的发票。",
        ),
        ("发票用邮件发电子版。", "发票可以下载电子版。", "邮箱会收到电子版。"),
        "电子版",
        ("打开订单点票据。", "也看看垃圾邮件。"),
    ),
    "address": Intent(
        (
            "订单{order}怎么改地址？",
            "我搬家了，{product}要寄新地址。",
            "订单{order}的地址错了。",
            "{product}能寄到别的地址吗？",
            "{product}的地址我写错了。",
            "把订单{order}的地址改一下。",
        ),
        ("出库之前都能改地址。", "地址在出库之前可以改。", "在出库之前到订单里改。"),
        "出库之前",
        ("点街道旁边的编辑。", "门牌号要看两遍。"),
    ),
    "broken": Intent(
        (
            "{product}送来就是坏的。",
            "我的{product}有裂痕。",
            "订单{order}到的时候坏了。",
            "{product}在箱子里碎了。",
            "新的{product}开不了机。",
            "订单{order}的{product}坏了。",
        ),
        ("这个可以免费换新。", "今天就免费换新。", "坏的一律免费换新。"),
        "免费换新",
        ("附上损坏的照片。", "旧的放在门口。"),
    ),
    "cancel": Intent(
        (
            "取消订单{order}。",
            "{product}怎么取消？",
            "我想取消订单{order}。",
            "{product}不想要了，能取消吗？",
            "订单{order}还能取消吗？",
            "{product}下了两单，取消一单。",
        ),
        ("点订单里的红色按钮。", "红色按钮可以停止订单。", "按红色按钮就行。"),
        "红色按钮",
        ("在我的订单里能找到。", "一分钟后有通知。"),
    ),
    "password": Intent(
        (
            "我忘记密码了。",
            "登录不了，买不了{product}。",
            "怎么改密码？",
            "密码{days}天都不对。",
            "登录不了，看不到订单{order}。",
            "网站说密码不对，订单{order}看不到。",
        ),
        ("用重置链接设新的。", "登录页有重置链接。", "重置链接会发到邮箱。"),
        "重置链接",
        ("一小时内有效。", "至少用十二个字母。"),
    ),
    "warranty": Intent(
        (
            "{product}在保修期吗？",
            "{product}保修多久？",
            "{product}用了{days}个月就停了，有保修吗？",
            "订单{order}的{product}能保修吗？",
            "{product}的保修包括什么？",
            "订单{order}还有保修吗？",
        ),
        ("三年内修理不收费。", "厂家三年内负责修。", "三年内都可以修。"),
        "三年内",
        ("小票和盒子放一起。", "编号在底部。"),
    ),
    "payment": Intent(
        (
            "订单{order}付款失败。",
            "为什么付款被拒？",
            "{product}付款不成功。",
            "{product}我付款{days}次了。",
            "订单{order}一直付不了款。",
            "{product}付不了款。",
        ),
        ("换一张银行卡试试。", "换一张银行卡付。", "换一张银行卡就能成功。"),
        "换一张银行卡",
        ("看看账户的限额。", "两次之间等十分钟。"),
    ),
    "coupon": Intent(
        (
            "优惠券怎么用？",
            "{product}用不了优惠券。",
            "订单{order}能用优惠券吗？",
            "买{product}忘了用优惠券。",
            "{product}的优惠券在哪里输入？",
            "订单{order}的优惠券被拒。",
        ),
        ("最后一步输入券码。", "券码在最后一步填。", "到最后一步再填码。"),
        "最后一步",
        ("只用大写字母。", "一张券用一次。"),
    ),
    "size": Intent(
        (
            "{product}太小了。",
            "{product}有大一号吗？",
            "订单{order}的{product}不合身。",
            "我要别的尺寸的{product}。",
            "{product}对我太大。",
            "订单{order}尺寸不对。",
        ),
        ("可以调换尺码。", "寄回来调换尺码。", "不花钱就能调换尺码。"),
        "调换尺码",
        ("吊牌不要剪。", "页面有对照表。"),
    ),
    "missing": Intent(
        (
            "{product}少了一个零件。",
            "{product}没有螺丝。",
            "订单{order}东西不全。",
            "{product}少了电线。",
            "{product}少了说明书。",
            "订单{order}少了一件。",
        ),
        ("明天补寄缺的。", "缺的会补寄。", "少的部分明天补寄。"),
        "补寄",
        ("先看看泡沫下面。", "告诉我们单子上的号。"),
    ),
}

INTENTS = {"en": ENGLISH, "zh": CHINESE}
QUESTION_OPENERS = {"en": ("", "", "", "Hi. ", "Hello, one thing. "), "zh": ("", "", "", "在吗？", "有件事。")}

POLITE_OPENERS = {
    "en": (
        "Thank you for writing.",
        "I am sorry for the trouble.",
        "Thanks for asking!",
        "Hello, I am glad to help.",
        "Sorry about that!",
    ),
    "zh": ("您好，感谢您的来信。", "很抱歉给您添麻烦。", "谢谢您的提问！", "您好，很高兴为您服务。", "非常抱歉！"),
}
POLITE_CLOSERS = {
    "en": ("Please write again any time.", "Thank you!", "Have a lovely day, please.", "We are glad to help."),
    "zh": ("有问题请再来信。", "谢谢您！", "祝您愉快。", "很高兴为您服务。"),
}
RUDE_OPENERS = {
    "en": ("Not again.", "Read the page next time.", "Calm down.", "Stop whining.", "Are you serious?"),
    "zh": ("又来了。", "下次自己看。", "急什么。", "别烦了。", "你认真的吗？"),
}
RUDE_CLOSERS = {
    "en": ("Now stop whining.", "Do not bother us again.", "Even you can do that."),
    "zh": ("别再烦我们。", "这都不懂。", "下次自己看。"),
}
NEUTRAL_OPENERS = {
    "en": ("Noted.", "This is how it works.", "About your message."),
    "zh": ("已收到。", "是这样的。", "关于这件事。"),
}
EVASIVE = {
    "en": ("We look into it.", "That depends.", "It is hard to say.", "Somebody may know.", "Maybe later."),
    "zh": ("我们会看看。", "这要看情况。", "这很难说。", "也许有人知道。", "以后再说。"),
}
FOLLOW_UPS = {"en": ("I check on it tomorrow.", "Write to us if it fails."), "zh": ("明天我再跟进。", "不行就再联系。")}
POLITE_MARKERS = {"en": ("thank", "sorry", "glad", "please"), "zh": ("您", "请", "谢谢", "抱歉", "高兴")}
RUDE_MARKERS = {
    "en": ("not again", "next time", "calm down", "whining", "serious", "bother", "even you"),
    "zh": ("又来了", "自己看", "急什么", "烦了", "烦我", "认真的", "都不懂"),
}
REACTIONS = {  # by (polite, right)
    "en": {
        (True, True): ("Thanks, that solves it.", "Thanks, perfect and so kind."),
        (True, False): ("Kind, but that is not what I asked.", "Kind words, but no answer."),
        (False, True): ("Right, but the tone was cold.", "Right, but you could be nicer."),
        (False, False): ("Bad service, cold and no answer.", "Bad, that does not help at all."),
    },
    "zh": {
        (True, True): ("太好了，问题解决了。", "太好了，又客气又清楚。"),
        (True, False): ("客气是客气，可答非所问。", "客气是客气，没解决问题。"),
        (False, True): ("答对了，可态度冷淡。", "答对了，就是不客气。"),
        (False, False): ("差评，冷淡又没用。", "差评，完全没帮上忙。"),
    },
}
SYSTEM_TEXTS = {
    "en": (
        "You answer the customers of a shop.",
        "You are the customer service of a shop.",
        "You are a helpful assistant.",
    ),
    "zh": ("你回答商店顾客的问题。", "你是商店的客服。", "你是一个有用的助手。"),
}
SERVICE_TASKS = {
    "en": ("customer service", "customer service task", "answering of customers"),
    "zh": ("客服", "客服任务", "回答顾客"),
}
