"""Files that were made to do harm, or that broke on the way: each ends in a sentence with a line, and never in half an import."""

import io
import json
import random
import time
import zipfile
from pathlib import Path

import pytest

from backend.exchange import formats, upload
from backend.exchange.plan import BadFile

FILES = Path(__file__).parent / "files"


def refused(name: str, data: bytes | str, format: str = "") -> BadFile:
    content = data.encode() if isinstance(data, str) else data
    started = time.thread_time()  # what others do on this core does not count
    with pytest.raises(BadFile) as raised:
        formats.parse(upload.of_bytes(name, {name: content}), format)
    assert time.thread_time() - started < 5
    return raised.value


def zipped(entries: dict[str, bytes], **how: int) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", **how) as archive:  # type: ignore[arg-type]
        for name, content in entries.items():
            archive.writestr(name, content)
    return held.getvalue()


def test_yaml_that_multiplies_itself_is_refused_at_the_alias():
    text = "a: &a [x,x,x]\nb: &b [*a,*a,*a]\ntests: [*b]\n"
    problem = refused("p.yaml", text)
    assert problem.code == "file_yaml_alias" and problem.values["line"] == 2


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system", "!function", "!!binary", "!Template"])
def test_a_tag_is_refused_with_its_line(tag):
    problem = refused("p.yaml", f"prompts:\n- {tag} [x]\n")
    assert problem.code == "file_yaml_tag" and problem.values["line"] == 2


@pytest.mark.parametrize("open_", ["[", "{a: ", "- ", "? "])
def test_deep_yaml_is_refused(open_):
    assert refused("p.yaml", "tests: " + "\n" * (open_ in "- ? ") + open_ * 5000).code in (
        "file_depth",
        "file_yaml",
        "file_yaml_key",
    )


def test_deep_json_is_refused():
    assert refused("p.json", '{"tests": ' + "[" * 100_000).code == "file_depth"
    assert refused("p.json", '{"tests": ' + "[" * 100 + "]" * 100 + "}").code == "file_depth"


def test_yaml_beyond_a_megabyte_is_refused():
    assert refused("p.yaml", "tests: [" + "a, " * 400_000 + "]").code == "file_yaml_size"


def test_a_cell_of_ten_megabytes_is_refused_with_its_line():
    problem = refused("t.csv", "q,__expected\nx,y\n" + "z" * 10_000_000 + ",y\n")
    assert problem.code == "file_cell" and problem.values["line"] == 3
    line = json.dumps({"messages": [{"role": "user", "content": "z" * 10_000_000}]})
    assert refused("c.jsonl", line).code == "file_cell"


def test_half_a_character_pair_and_a_zero_byte_are_refused_with_their_line():
    text = '{"messages": [{"role": "user", "content": "ok"}]}\n{"messages": [{"role": "user", "content": "\\ud83d"}]}\n'
    problem = refused("c.jsonl", text)
    assert problem.code == "file_surrogate" and problem.values["line"] == 2
    assert refused("t.csv", "q,__expected\na\0b,x\n").code in ("file_nul", "csv_broken")
    assert refused("c.jsonl", '{"messages": [{"role": "user", "content": "a\\u0000b"}]}').code == "file_nul"


@pytest.mark.parametrize(
    ("text", "line"),
    [("a,b\n1,2,3\n", 2), ("a,a\n1,2\n", 1), ("a,\n1,2\n", 1), ('a,b\n"x,2\n', 2), ('a,b\n1,2\n"x"y,2\n', 3)],
)
def test_a_broken_table_is_refused_with_its_line(text, line):
    assert refused("t.csv", text).values["line"] == line


def test_broken_json_and_yaml_are_refused_with_their_line():
    assert refused("p.json", '{"tests": [\n1,,2]}').values["line"] == 2
    assert refused("p.yaml", "tests:\n- a: [1\n- b: 2\n").values["line"] in (3, 4)
    assert refused("p.json", '{"tests": NaN}').code == "file_constant"
    assert refused("p.json", '{"tests": 1, "tests": 2}').code == "file_double_key"
    assert refused("p.yaml", "tests: 1\ntests: 2\n").values["line"] == 2
    assert refused("p.yaml", "tests: 1\n---\ntests: 2\n").code == "file_yaml_documents"
    assert refused("p.yaml", b"tests: \xff\n").values["line"] == 1


def test_a_number_with_millions_of_digits_does_no_harm():
    plan = formats.parse(
        upload.of_bytes("p.json", {"p.json": b'{"tests": [{"vars": {"n": ' + b"9" * 100_000 + b"}}]}"})
    )
    assert plan.cases[0].values == {"n": "9" * 100_000}


def test_a_zip_that_unpacks_to_too_much_is_refused():
    assert (
        refused("f.cfzip", zipped({"flow.json": b"0" * 60_000_000}, compression=zipfile.ZIP_DEFLATED)).code
        == "zip_bomb"
    )
    assert (
        refused("f.cfzip", zipped({"flow.json": b"0" * 9_000_000}, compression=zipfile.ZIP_DEFLATED)).code == "zip_bomb"
    )
    assert refused("f.cfzip", zipped({f"{i}": b"" for i in range(1001)})).code == "zip_bomb"


@pytest.mark.parametrize("path", ["../flow.json", "/flow.json", "a/../../flow.json", "..\\flow.json"])
def test_a_zip_whose_paths_lead_outside_is_refused(path):
    assert refused("f.cfzip", zipped({path: b"{}"})).code == "zip_path"


def test_lists_of_values_cannot_multiply_without_end():
    text = (
        "prompts: ['{{a}}']\ntests:\n- vars: {"
        + ", ".join(f"v{i}: [{', '.join('abcdefghij')}]" for i in range(9))
        + "}\n"
    )
    assert refused("p.yaml", text).code == "file_cases"


def test_includes_in_a_circle_end():
    files = {"a.yaml": b"task: x\ninclude: b.yaml\n", "b.yaml": b"include: a.yaml\n"}
    with pytest.raises(BadFile, match="circle"):
        formats.parse(upload.of_bytes("a.yaml", files), "lm-eval")


def test_a_reference_never_leaves_the_upload():
    text = "prompts: ['file:///etc/passwd', 'file://../../etc/passwd']\ntests:\n- vars: {a: 'file:///etc/passwd'}\n- file:///etc/passwd\n"
    plan = formats.parse(upload.of_bytes("p.yaml", {"p.yaml": text.encode()}))
    assert plan.is_empty and {note.code for note in plan.notes} == {"file_outside"}


def test_what_is_mutated_is_refused_with_a_sentence_or_read_and_never_breaks():
    rng = random.Random(6)
    sources = [
        path
        for path in sorted(FILES.iterdir())
        if path.suffix in (".yaml", ".csv", ".cforge", ".prompty", ".jsonl", ".json")
    ]
    counts = {"read": 0, "refused": 0}
    for path in sources:
        whole = path.read_bytes()
        for _ in range(60):
            data = bytearray(whole)
            for _ in range(rng.randrange(1, 4)):
                place = rng.randrange(len(data))
                kind = rng.randrange(4)
                if kind == 0:
                    del data[place : place + rng.randrange(1, 30)]
                elif kind == 1:
                    data[place : place + 1] = rng.choice(
                        [b"{", b"}", b"[", b"]", b'"', b"'", b":", b"\n", b"\t", b"{{", b"%}", b"&a", b"\xff"]
                    )
                elif kind == 2:
                    data[place:place] = data[:place][-40:]
                else:
                    data[place] = rng.randrange(256)
                if not data:
                    break
            try:
                formats.parse(upload.of_bytes(path.name, {path.name: bytes(data)}))
                counts["read"] += 1
            except BadFile as problem:
                assert str(problem) and "{" not in str(problem).replace('{"messages', ""), problem
                counts["refused"] += 1
    assert counts["read"] > 50 and counts["refused"] > 50
