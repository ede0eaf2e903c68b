"""Leaderboards, on the quality page."""

STRINGS = {
    "board.tab": ("Leaderboards", "排行榜"),
    "board.about": (
        (
            "Bradley-Terry strengths with ties by Davidson's model, from blind pairs of the random arm; intervals are clustered by person. Models are compared under "
            "one template, templates with one model."
        ),
        "根据随机组盲评对的 Bradley-Terry 强度,平局按 Davidson 模型,区间按人员聚类。模型在同一模板下比较,模板以同一模型比较。",
    ),
    "board.models": ("Models", "模型"),
    "board.templates": ("Templates", "模板"),
    "board.strength": ("Strength (logit)", "强度(logit)"),
    "board.held": ("Length and format held equal", "长度与格式持平时"),
    "board.judged": ("Pairs", "对数"),
    "board.next": ("Against the next", "对下一名"),
    "board.no_models": (
        "Two models must have answered the same cases under one template and been judged.",
        "须有两个模型在同一模板下回答过相同用例并被评判。",
    ),
    "board.no_templates": (
        "One model must have answered the same cases under two templates and been judged.",
        "须有一个模型在两个模板下回答过相同用例并被评判。",
    ),
    "board.rests": (
        "{n|judgement|judgements} of {people|person|people}; {ties} named neither. Two of equal strength would tie in {even}.",
        "{people} 人的 {n} 个评判;其中 {ties} 不分高下。强度相同的两者预计有 {even} 平局。",
    ),
    "board.slopes": (
        "On {n} of them, an answer e times as long gains {length}, one with headings {headings}, with lists {lists}, with bold {bold}.",
        "在其中 {n} 个上,长度为 e 倍的回答增加 {length},有标题者 {headings},有列表者 {lists},有粗体者 {bold}。",
    ),
    "board.beats": (
        "beats it: {share} of {n} ({low}–{high}, valid however often you look)",
        "胜出:{n} 个中占 {share}({low}–{high},随时查看均有效)",
    ),
    "board.loses": (
        "loses to it head to head: {share} of {n} ({low}–{high}, valid however often you look)",
        "直接对比落败:{n} 个中占 {share}({low}–{high},随时查看均有效)",
    ),
    "board.undecided": (
        "undecided: {share} of {n} ({low}–{high}); about {more} more would decide",
        "未定:{n} 个中占 {share}({low}–{high});约再需 {more} 个",
    ),
    "board.even": (
        "even: {share} of {n} ({low}–{high}); no number would part them",
        "相当:{n} 个中占 {share}({low}–{high});再多也难分",
    ),
}
