"""Annotators without a browser: each judges as fast as answers come, on a connection of its own. A plan comes in on stdin.

{"side", "host", "port", "project", "tokens": one per client, "seconds", "per_second": null or a rate for all together}
What goes out: {"judged", "errors", "seconds", "save_ms", "next_ms", "both_ms"}; milliseconds of each loop, and each judged id.
"""

import asyncio
import json
import random
import re
import sys
import time
from typing import Any, NamedTuple

ITEM = re.compile(rb'name="instance_id"[^>]*value="(\d+)"')
RANKS = ([1, 2], [2, 1], [1, 1])


class Reply(NamedTuple):
    status: int
    body: Any  # None where it is no JSON
    text: bytes = b""


class Connection:
    """One kept-alive HTTP/1.1 connection; what is slow here is the server."""

    def __init__(self, host: str, port: int, headers: dict[str, str]):
        self.host, self.port = host, port
        self.head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def ask(self, method: str, path: str, body: Any = None) -> Reply:
        """Once more on a new connection when the old one was closed while nothing was asked, as browsers do."""
        was_idle = self.reader is not None
        reply = await self._ask(method, path, body)
        return await self._ask(method, path, body) if reply.status == 0 and was_idle else reply

    async def _ask(self, method: str, path: str, body: Any) -> Reply:
        if self.reader is None or self.writer is None or self.reader.at_eof():
            self.reader, self.writer = await asyncio.open_connection(self.host, self.port)
        data = b"" if body is None else json.dumps(body).encode()
        kind = f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n" if data else ""
        self.writer.write(
            f"{method} {path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n{self.head}{kind}\r\n".encode() + data
        )
        try:
            return await self._read()
        except (OSError, asyncio.IncompleteReadError):
            self.close()
            return Reply(0, None)

    async def _read(self) -> Reply:
        assert self.reader is not None
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        status = int(head.split(" ", 2)[1])
        fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        if "chunked" in fields.get("transfer-encoding", ""):
            data = b""
            while size := int((await self.reader.readline()).strip() or b"0", 16):
                data += await self.reader.readexactly(size)
                await self.reader.readline()
            await self.reader.readline()
        else:
            data = await self.reader.readexactly(int(fields.get("content-length", "0")))
        if fields.get("connection") == "close":
            self.close()
        try:
            return Reply(status, json.loads(data) if data else None, data)
        except ValueError:
            return Reply(status, None, data)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


class Tally:
    def __init__(self) -> None:
        self.judged: list[int] = []
        self.errors: list[int] = []  # HTTP statuses, 0 for a connection that broke
        self.next_ms: list[float] = []
        self.save_ms: list[float] = []
        self.both_ms: list[float] = []


async def whetstone(plan: dict[str, Any], token: str, tally: Tally, ends: float, draw: random.Random) -> None:
    """The reply to a submit holds the next desk: one request is the whole loop."""
    line = Connection(plan["host"], plan["port"], {"Cookie": f"whetstone={token}"})
    desk: Any = None
    late = 0.0
    pause = len(plan["tokens"]) / plan["per_second"] if plan.get("per_second") else 0.0
    due = time.perf_counter() + draw.random() * pause
    while time.perf_counter() < ends:
        if desk is None:
            reply = await line.ask("POST", "/api/label/next", {"project": plan["project"]})
            if reply.status != 200:
                tally.errors.append(reply.status)
                continue
            desk = reply.body
            if desk is None:
                return
        if pause:
            due += draw.expovariate(1 / pause)  # an open loop: what waits for a slow reply counts as waiting
            if due > ends:
                break
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            late = max(0.0, time.perf_counter() - due)
        body = {"assignment": desk["assignment"], "key": _key(draw), "ranks": draw.choice(RANKS), "seconds": 5.0}
        began = time.perf_counter()
        reply = await line.ask("POST", "/api/label/submit", body)
        took = 1000 * (time.perf_counter() - began + late)
        if reply.status != 200:
            tally.errors.append(reply.status)
            desk = None
            continue
        tally.judged.append(reply.body["judgement"])
        tally.both_ms.append(took)
        desk = reply.body["desk"]
    line.close()


async def label_studio(plan: dict[str, Any], token: str, tally: Tally, ends: float, draw: random.Random) -> None:
    """Two requests, as its page makes them: the next task, and its annotation."""
    line = Connection(plan["host"], plan["port"], {"Authorization": f"Token {token}"})
    while time.perf_counter() < ends:
        began = time.perf_counter()
        reply = await line.ask("GET", f"/api/projects/{plan['project']}/next")
        got = time.perf_counter()
        if reply.status != 200:
            tally.errors.append(reply.status)
            if reply.status == 404:
                return
            continue
        value = {"selected": draw.choice(["left", "right"])}
        result = [{"from_name": "pw", "to_name": "pw", "type": "pairwise", "value": value}]
        task = reply.body["id"]
        reply = await line.ask("POST", f"/api/tasks/{task}/annotations/", {"result": result, "lead_time": 5.0})
        saved = time.perf_counter()
        if reply.status not in (200, 201):
            tally.errors.append(reply.status)
            continue
        tally.judged.append(task)
        tally.next_ms.append(1000 * (got - began))
        tally.save_ms.append(1000 * (saved - got))
        tally.both_ms.append(1000 * (saved - began))
    line.close()


async def potato(plan: dict[str, Any], token: str, tally: Tally, ends: float, draw: random.Random) -> None:
    """Three requests, as its page makes them: save, go on, and the page with the next item."""
    line = Connection(plan["host"], plan["port"], {"Cookie": f"session={token}", "X-Potato-Navigation": "1"})
    item = ITEM.search((await line.ask("GET", "/annotate")).text)
    while item and time.perf_counter() < ends:
        began = time.perf_counter()
        given = {"better:::" + draw.choice(["left", "right", "tie"]): "on"}
        body: dict[str, Any] = {"instance_id": item[1].decode(), "annotations": given, "span_annotations": []}
        reply = await line.ask("POST", "/updateinstance", body)
        saved = time.perf_counter()
        if reply.status != 200 or reply.body.get("status") != "success":
            tally.errors.append(reply.status)
            continue
        tally.judged.append(int(item[1]))
        moved = await line.ask("POST", "/annotate", {"action": "next_instance", "instance_id": item[1].decode()})
        page = await line.ask("GET", "/annotate")
        if moved.status != 200 or page.status != 200:
            tally.errors.append(moved.status if moved.status != 200 else page.status)
            continue
        following, got = ITEM.search(page.text), time.perf_counter()
        if following and following[1] == item[1]:
            tally.errors.append(409)  # it did not go on
            continue
        item = following
        tally.next_ms.append(1000 * (got - saved))
        tally.save_ms.append(1000 * (saved - began))
        tally.both_ms.append(1000 * (got - began))
    line.close()


def _key(draw: random.Random) -> str:
    digits = f"{draw.getrandbits(128):032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


async def run(plan: dict[str, Any]) -> dict[str, Any]:
    tally = Tally()
    side = {"whetstone": whetstone, "label-studio": label_studio, "potato": potato}[plan["side"]]
    began = time.perf_counter()
    ends = began + plan["seconds"]
    clients = [side(plan, token, tally, ends, random.Random(n)) for n, token in enumerate(plan["tokens"])]
    await asyncio.wait_for(asyncio.gather(*clients), plan["seconds"] + 90)
    return {**vars(tally), "seconds": time.perf_counter() - began}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run(json.load(sys.stdin)))))
