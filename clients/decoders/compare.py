"""Compares what a decoder printed with the expected output: compare.py NAME EXPECTED PRINTED."""

import json
import sys


def samples(path):
    with open(path, encoding="utf-8") as lines:
        found = [json.loads(line) for line in lines]
    return {sample["name"]: sample["value"] for sample in found}


def main():
    decoder, expected, printed = sys.argv[1], samples(sys.argv[2]), samples(sys.argv[3])
    wrong = [name for name in expected.keys() | printed.keys() if expected.get(name) != printed.get(name)]
    for name in sorted(wrong)[:10]:
        print(f"{decoder}: {name}\n  expected: {expected.get(name)}\n  decoded:  {printed.get(name)}", file=sys.stderr)
    if wrong or not expected:
        sys.exit(f"{decoder}: {len(wrong)} of {len(expected)} samples are decoded wrongly")
    print(f"{decoder}: {len(expected)} samples are decoded as expected")


main()
