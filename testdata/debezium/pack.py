"""What Capture.java wrote, without the schemas that repeat: schemas by topic, then one record per line. Payloads are kept as text, untouched."""
import json, sys

lines = open(sys.argv[1], encoding="utf-8").read().split("\n")[:-1]
schemas, records = {}, []


def part(text, topic, which):
    if text == "null" or not text.startswith('{"schema":'):
        return text
    whole = json.loads(text)
    if whole["schema"] is not None:
        schemas.setdefault(topic, {})[which] = whole["schema"]
    payload = text[text.index(',"payload":') + len(',"payload":') : -1]
    assert json.loads(payload) == whole["payload"]
    return payload


for topic, key, value in zip(*[iter(lines)] * 3):
    if topic.endswith(".transaction"):
        continue
    records.append('{"topic":%s,"key":%s,"value":%s}' % (json.dumps(topic), part(key, topic, "key"), part(value, topic, "value")))
print('{"schemas":{')
print(",\n".join("%s:%s" % (json.dumps(t), json.dumps(s, ensure_ascii=False, separators=(",", ":"))) for t, s in schemas.items()))
print('},"records":[')
print(",\n".join(records))
print("]}")
