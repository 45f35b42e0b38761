"""grpcurl lists and calls everything without a proto file: it asks the node for the descriptors (reflection)."""

import json
import os
import re
import subprocess

from cluster import ENV, TIMEOUT, ClusterTest

from seriatim.v1 import cluster_service_pb2, log_service_pb2

SERVICES = [
    file.services_by_name[name]
    for file, name in ((log_service_pb2.DESCRIPTOR, "LogService"), (cluster_service_pb2.DESCRIPTOR, "ClusterService"))
]
REFLECTION = ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"]


class Grpcurl(ClusterTest):
    def grpcurl(self, *args, node=0, options=(), user="root"):
        """Runs grpcurl, with a client certificate if there is a user."""
        certs = self.cluster.site / "certs"
        tls = ["-cacert", certs / "ca.pem"]
        if user:
            tls += ["-cert", certs / f"client-{user}.pem", "-key", certs / f"client-{user}-key.pem"]
        command = [os.environ["GRPCURL"], *tls, *options, self.cluster.nodes[node].rpc_addr, *args]
        return subprocess.run(command, capture_output=True, timeout=TIMEOUT, text=True, env=ENV)

    def prints(self, *args, node=0, options=()):
        done = self.grpcurl(*args, node=node, options=options)
        self.assertEqual((done.returncode, done.stderr), (0, ""), args)
        return done.stdout

    def call(self, method, request=None, node=0):
        return json.loads(self.prints(method, node=node, options=["-d", json.dumps(request or {})]))

    def fails(self, method, request):
        """Returns what it prints for an error, with the details as JSON."""
        done = self.grpcurl(method, options=["-format-error", "-d", json.dumps(request)])
        self.assertNotEqual(done.returncode, 0, done.stdout)
        return json.loads(done.stderr)

    def transfer(self, method):
        """Lets the node that leads the log `default` hand over."""
        for node in range(3):
            done = self.grpcurl(method, node=node, options=["-d", json.dumps({"log": "default"})])
            if done.returncode == 0:
                return json.loads(done.stdout)
        raise AssertionError(done.stderr)

    def test_every_service_and_method_is_listed(self):
        listed = self.prints("list").split()
        expected = [service.full_name for service in SERVICES] + ["log.v1.Log", "grpc.health.v1.Health", *REFLECTION]
        self.assertEqual(set(expected) - set(listed), set())
        for service in SERVICES:
            methods = self.prints("list", service.full_name).split()
            self.assertEqual(sorted(methods), sorted(f"{service.full_name}.{m.name}" for m in service.methods))
            described = self.prints("describe", service.full_name)
            for method in service.methods:
                self.assertIn(f"rpc {method.name} (", described)

    def test_every_message_of_a_method_is_described(self):
        for service in SERVICES:
            for method in service.methods:
                for type_ in (method.input_type, method.output_type):
                    described = self.prints("describe", type_.full_name)
                    for field in type_.fields:
                        self.assertRegex(described, rf"\b{field.name} = {field.number}\b")

    def test_every_unary_method_is_called(self):
        log, cluster = (service.full_name for service in SERVICES)
        value = "aGVsbG8="
        appended = self.call(f"{log}/Produce", {"records": [{"value": value, "key": "", "type": 7}]}, node=1)
        self.assertEqual(appended["count"], 1)
        # JSON has no field with its default value.
        offset = appended.get("offset", "0")
        answers = {
            f"{log}/Produce": appended,
            f"{log}/Consume": self.call(f"{log}/Consume", {"offset": offset, "log": "default"}, node=2),
            f"{log}/GetServers": self.call(f"{log}/GetServers", {"log": "default"}),
            f"{log}/GetLog": self.call(f"{log}/GetLog", {"log": "default"}),
            f"{log}/ListLogs": self.call(f"{log}/ListLogs", {"pageSize": 10}),
            # grpcurl does not know the JSON of a field mask, which is a string.
            f"{log}/UpdateLog": self.call(
                f"{log}/UpdateLog",
                {"log": "default", "config": {"retentionAge": "3600s"}, "updateMask": {"paths": ["retention_age"]}},
            ),
            f"{log}/TrimLog": self.call(f"{log}/TrimLog", {"log": "default", "firstOffset": offset}),
            f"{cluster}/GetCluster": self.call(f"{cluster}/GetCluster"),
            f"{cluster}/WhoAmI": self.call(f"{cluster}/WhoAmI"),
            f"{cluster}/GetNode": self.call(f"{cluster}/GetNode", node=2),
        }
        answers[f"{log}/CreateLog"] = created = self.call(f"{log}/CreateLog", {"log": "new", "config": {"replicas": 1}})
        named = {"log": "new", "logId": created["log"]["logId"]}
        answers[f"{log}/DeleteLog"] = self.call(f"{log}/DeleteLog", {**named, "purgeAfter": "60s"})
        answers[f"{log}/UndeleteLog"] = self.call(f"{log}/UndeleteLog", named)
        self.call(f"{log}/DeleteLog", {**named, "purgeAfter": "0s"})
        chained = self.call(f"{log}/CreateLog", {"log": "chained", "config": {"replicas": 1, "hashChain": True}})
        signed = self.call(f"{log}/Produce", {"log": "chained", "records": [{"value": value}], "receipt": True}, node=1)
        self.assertEqual(set(signed["receipt"]), {"statement", "signature", "certificates"})
        answers[f"{log}/ReadChain"] = self.call(f"{log}/ReadChain", {"log": "chained", "receipt": True}, node=2)
        self.call(f"{log}/DeleteLog", {"log": "chained", "logId": chained["log"]["logId"], "purgeAfter": "0s"})
        # A backup without records, at offset 5.
        backup = {"sourceLogId": "00000000000000ff", "firstOffset": "5", "endOffset": "5", "digest": "A" * 43 + "="}
        restored = self.call(f"{log}/CreateLog", {"log": "restored", "config": {"replicas": 1}, "restore": backup})
        named = {"log": "restored", "logId": restored["log"]["logId"]}
        self.assertEqual(restored["log"]["state"], "LOG_STATE_RESTORING")
        answers[f"{log}/FinishRestore"] = self.call(f"{log}/FinishRestore", named, node=1)
        self.call(f"{log}/DeleteLog", {**named, "purgeAfter": "0s"})
        source = {"log": "default", "producer": "source"}
        answers[f"{log}/InitProducer"] = self.call(f"{log}/InitProducer", {**source, "instance": "7"})
        answers[f"{log}/GetProducer"] = self.call(f"{log}/GetProducer", source, node=1)
        answers[f"{log}/ListProducers"] = self.call(f"{log}/ListProducers", {"log": "default"}, node=2)
        reader = {"log": "default", "cursor": "reader"}
        acquired = self.call(f"{log}/AcquireCursor", {**reader, "instance": "8", "start": "START_LATEST"})
        answers[f"{log}/AcquireCursor"] = acquired
        answers[f"{log}/CommitCursor"] = self.call(
            f"{log}/CommitCursor",
            {**reader, "nextOffset": acquired["cursor"]["nextOffset"], "epoch": acquired["cursor"]["epoch"], "metadata": value},
            node=1,
        )
        answers[f"{log}/GetCursor"] = self.call(f"{log}/GetCursor", reader, node=2)
        answers[f"{log}/ListCursors"] = self.call(f"{log}/ListCursors", {"log": "default"}, node=1)
        answers[f"{log}/DeleteCursor"] = self.call(f"{log}/DeleteCursor", reader)
        answers[f"{cluster}/UpdateCluster"] = self.call(
            f"{cluster}/UpdateCluster",
            {"settings": {"createOnAppend": False}, "updateMask": {"paths": ["create_on_append"]}},
        )
        answers[f"{cluster}/ListNodes"] = listed = self.call(f"{cluster}/ListNodes", node=1)
        node = {"nodeId": listed["nodes"][2]["nodeId"]}
        answers[f"{cluster}/DrainNode"] = self.call(f"{cluster}/DrainNode", node)
        answers[f"{cluster}/UndrainNode"] = self.call(f"{cluster}/UndrainNode", node, node=1)
        answers[f"{cluster}/ReplaceNode"] = self.call(f"{cluster}/ReplaceNode", node)
        self.call(f"{cluster}/UndrainNode", node)
        answers[f"{cluster}/BalanceCluster"] = self.call(f"{cluster}/BalanceCluster", {"stop": True})
        answers[f"{cluster}/RemoveNode"] = self.fails(f"{cluster}/RemoveNode", {"nodeId": "00000000000000ff"})
        answers[f"{cluster}/TransferLeadership"] = self.transfer(f"{cluster}/TransferLeadership")
        level = answers[f"{cluster}/GetCluster"]["cluster"]["featureLevel"]
        answers[f"{cluster}/RaiseFeatureLevel"] = self.call(f"{cluster}/RaiseFeatureLevel", {"level": level})

        unary = {
            f"{service.full_name}/{method.name}"
            for service in SERVICES
            for method in service.methods
            if not method.client_streaming and not method.server_streaming
        }
        self.assertEqual(answers.keys(), unary)
        record = answers[f"{log}/Consume"]["records"][0]
        self.assertEqual((record["value"], record["key"], record["type"]), (value, "", 7))
        self.assertEqual(len(answers[f"{log}/GetServers"]["servers"]), 3)
        log_id = appended["logId"]
        self.assertEqual(answers[f"{log}/GetLog"]["log"]["logId"], log_id)
        self.assertEqual([info["name"] for info in answers[f"{log}/ListLogs"]["logs"]], ["default"])
        self.assertEqual(answers[f"{log}/UpdateLog"]["log"]["config"]["retentionAge"], "3600s")
        self.assertEqual(answers[f"{log}/TrimLog"]["log"]["position"].get("firstOffset", "0"), offset)
        self.assertEqual((created["log"]["name"], created["log"]["config"]["replicas"]), ("new", 1))
        self.assertEqual(answers[f"{log}/DeleteLog"]["log"]["state"], "LOG_STATE_DELETED")
        self.assertEqual(answers[f"{log}/UndeleteLog"]["log"]["state"], "LOG_STATE_ACTIVE")
        self.assertEqual(answers[f"{log}/FinishRestore"]["log"]["state"], "LOG_STATE_ACTIVE")
        self.assertEqual(answers[f"{log}/FinishRestore"]["log"]["position"]["nextOffset"], "5")
        self.assertEqual(answers[f"{log}/GetProducer"], answers[f"{log}/InitProducer"])
        self.assertEqual(answers[f"{log}/ListProducers"]["producers"][0]["producer"], "source")
        self.assertEqual(answers[f"{log}/GetCursor"], answers[f"{log}/CommitCursor"])
        self.assertEqual(answers[f"{log}/GetCursor"]["cursor"]["metadata"], value)
        self.assertEqual(answers[f"{log}/ListCursors"]["cursors"][0]["cursor"], "reader")
        self.assertEqual(answers[f"{log}/ReadChain"]["links"][0]["count"], 1)
        self.assertEqual(answers[f"{log}/DeleteCursor"], {})
        self.assertIn("settings", answers[f"{cluster}/UpdateCluster"]["cluster"])
        self.assertEqual([node["state"] for node in listed["nodes"]], ["NODE_STATE_ACTIVE"] * 3)
        self.assertEqual(answers[f"{cluster}/DrainNode"]["node"]["state"], "NODE_STATE_DRAINED")
        self.assertEqual(answers[f"{cluster}/UndrainNode"]["node"]["state"], "NODE_STATE_ACTIVE")
        self.assertTrue(answers[f"{cluster}/ReplaceNode"]["node"]["mayBeReplaced"])
        self.assertEqual(answers[f"{cluster}/BalanceCluster"], {})
        self.assertIn("the cluster has no node", answers[f"{cluster}/RemoveNode"]["message"])
        self.assertIn(answers[f"{cluster}/TransferLeadership"]["leaderNodeId"], [n["nodeId"] for n in listed["nodes"]])
        self.assertEqual(answers[f"{cluster}/WhoAmI"]["principal"], "root")
        self.assertEqual(answers[f"{cluster}/GetNode"]["name"], self.cluster.nodes[2].name)
        self.assertEqual(answers[f"{cluster}/RaiseFeatureLevel"]["previousLevel"], level)

    def test_both_streams_are_called(self):
        log = SERVICES[0].full_name
        self.call(f"{log}/Produce", {"records": [{"value": "eA=="}]})
        request = json.dumps({"start": "START_LAST", "offset": 1, "stopAtEnd": True})
        # One JSON object after the other.
        messages = re.split(r"(?<=^\})\n", self.prints(f"{log}/ConsumeStream", options=["-d", request]), flags=re.MULTILINE)
        messages = [json.loads(message) for message in messages if message]
        self.assertEqual([r["value"] for message in messages for r in message.get("records", [])], ["eA=="])
        appended = self.call(f"{log}/ProduceStream", {"records": [{"value": "eQ=="}]})
        self.assertEqual(appended["offset"], messages[-1]["resumeOffset"])

    def test_an_error_contains_outcome_and_retry(self):
        failed = self.fails(f"{SERVICES[0].full_name}/GetLog", {"log": "nowhere"})
        [info] = [detail for detail in failed["details"] if detail["@type"].endswith("google.rpc.ErrorInfo")]
        self.assertEqual((info["domain"], info["reason"]), ("seriatim", "NO_SUCH_LOG"))
        metadata = info["metadata"]
        self.assertEqual((metadata["outcome"], metadata["retry"], metadata["log"]), ("none", "no", "nowhere"))

    def test_both_versions_of_reflection_answer(self):
        # grpcurl itself uses v1alpha only if there is no v1.
        for service in REFLECTION:
            answer = self.call(f"{service}/ServerReflectionInfo", {"listServices": ""})
            listed = {entry["name"] for entry in answer["listServicesResponse"]["service"]}
            self.assertLessEqual({service.full_name for service in SERVICES}, listed)

    def test_reflection_needs_a_certificate(self):
        done = self.grpcurl("list", user=None, options=["-connect-timeout", "5"])
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(done.stdout, "")
        # Any certificate, also one whose name has no right to any log.
        self.assertEqual(self.grpcurl("list", user="nobody").returncode, 0)
