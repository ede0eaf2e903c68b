"""What every part of the grammar shares: the split by content, and the words that stand for arbitrary labels."""

import hashlib
from random import Random

LANGUAGES = ("en", "zh")
SPLITS = ("train", "test")
TEST_SHARE = 10  # one text in ten is held out; our choice

# Words that say nothing about a review until demonstrations show them as labels. Each is one token. Which two a prompt
# uses, and which of them stands for what, is drawn anew, so that without demonstrations the answer cannot be known.
LABEL_WORDS = {
    "en": (
        "apple river stone window garden pencil blanket copper lantern orange mirror ladder anchor barrel candle desert "
        "engine feather glove hammer island jungle lemon magnet needle ocean pepper ribbon saddle tunnel velvet walnut "
        "zebra bridge castle dragon forest harbor iron bottle carpet dolphin eagle falcon ginger helmet ivory jasmine"
    ).split(),
    "zh": (
        "苹果 河流 石头 窗户 花园 铅笔 毛毯 橙子 镜子 梯子 大海 高山 森林 沙漠 海岛 桥梁 城堡 火车 飞机 轮船 月亮 太阳 星星 白云 "
        "雨伞 钥匙 蜡烛 锤子 针线 丝绸 核桃 柠檬 葡萄 西瓜 胡椒 生姜 老鹰 海豚 斑马 蝴蝶 蜻蜓 松树 竹子 荷花 铜钱 象牙 羽毛 水井"
    ).split(),
}


def split_of(text: str) -> str:
    """The split follows from the text alone, so that the same sentence can never be in both."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return "test" if int.from_bytes(digest[:4], "big") % TEST_SHARE == 0 else "train"


def arbitrary_labels(rng: Random, language: str) -> tuple[str, str]:
    """Any two label words: the word for positive, the word for negative."""
    first, second = rng.sample(LABEL_WORDS[language], 2)
    return first, second
