"""Compares what a program printed with the golden messages: check.py NAME GOLDEN PRINTED.

Each line is {"name", "bytes" (in hexadecimal), "json"} for a message, or {"name", "enum"} for an enum. "json" may be missing in all
lines of a program.
"""

import json
import pathlib
import sys


def lines(path):
    return {line["name"]: line for line in map(json.loads, path.read_text(encoding="utf-8").splitlines())}


def main():
    program, golden = sys.argv[1], pathlib.Path(sys.argv[2])
    expected, printed = lines(golden / "expected.jsonl"), lines(pathlib.Path(sys.argv[3]))
    has_json = any("json" in line for line in printed.values())
    for name, line in expected.items():
        if "json" in line:
            line["bytes"] = (golden / f"{name}.bin").read_bytes().hex()
            if not has_json:
                del line["json"]
    wrong = [name for name in expected.keys() | printed.keys() if expected.get(name) != printed.get(name)]
    for name in sorted(wrong)[:5]:
        print(f"{program}: {name}\n  expected: {expected.get(name)}\n  printed:  {printed.get(name)}", file=sys.stderr)
    if wrong or not expected:
        sys.exit(f"{program}: {len(wrong)} of {len(expected)} golden messages and enums are wrong")
    messages = sum("bytes" in line for line in expected.values())
    how = "bytes and JSON" if has_json else "bytes"
    print(f"{program}: {messages} messages have the same {how}, {len(expected) - messages} enums the same values")


main()
