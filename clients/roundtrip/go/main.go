// Decodes and encodes the golden messages with Go's generated code: roundtrip GOLDEN.
//
// This program also links code of log.v1, which test.sh generates under an import path of its own, as a program does that
// moves from the one to the other. Two packages with the same protobuf names would panic when the program starts.
package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/seriatim-log/seriatim/clients/go/seriatimv1"
	"github.com/seriatim-log/seriatim/clients/roundtrip/go/oldlogv1"
)

type line struct {
	Name  string           `json:"name"`
	Bytes string           `json:"bytes"`
	JSON  *json.RawMessage `json:"json"`
}

type enumLine struct {
	Name string           `json:"name"`
	Enum map[string]int32 `json:"enum"`
}

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(golden string) error {
	samples, err := os.ReadFile(filepath.Join(golden, "samples.txt"))
	if err != nil {
		return err
	}
	out, checked := json.NewEncoder(os.Stdout), 0
	lines := bufio.NewScanner(bytes.NewReader(samples))
	for lines.Scan() {
		name, typeName, _ := strings.Cut(lines.Text(), " ")
		encoded, err := os.ReadFile(filepath.Join(golden, name+".bin"))
		if err != nil {
			return err
		}
		type_, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(typeName))
		if err != nil {
			return err
		}
		message := type_.New().Interface()
		if err := proto.Unmarshal(encoded, message); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		got, expected := fields(name, message)
		if !reflect.DeepEqual(got, expected) {
			return fmt.Errorf("%s: %v instead of %v", name, got, expected)
		}
		checked += min(len(expected), 1)
		if name == "record_extreme" {
			if err := old(encoded); err != nil {
				return err
			}
		}
		again, err := proto.MarshalOptions{Deterministic: true}.Marshal(message)
		if err != nil {
			return err
		}
		text, err := protojson.Marshal(message)
		if err != nil {
			return err
		}
		if err := out.Encode(line{name, hex.EncodeToString(again), (*json.RawMessage)(&text)}); err != nil {
			return err
		}
	}
	if checked != 6 {
		return fmt.Errorf("the fields of %d messages were checked instead of 6", checked)
	}
	err = lines.Err()
	protoregistry.GlobalTypes.RangeEnums(func(type_ protoreflect.EnumType) bool {
		descriptor := type_.Descriptor()
		if descriptor.FullName().Parent() == "seriatim.v1" && err == nil {
			err = out.Encode(enumLine{string(descriptor.FullName()), numbers(descriptor.Values())})
		}
		return true
	})
	return err
}

func numbers(values protoreflect.EnumValueDescriptors) map[string]int32 {
	numbers := map[string]int32{}
	for i := range values.Len() {
		numbers[string(values.Get(i).Name())] = int32(values.Get(i).Number())
	}
	return numbers
}

// old reads a record of seriatim.v1 with the code of log.v1, and writes it again: both have the same numbers and types.
func old(encoded []byte) error {
	var record oldlogv1.Record
	if err := proto.Unmarshal(encoded, &record); err != nil {
		return err
	}
	again, err := proto.MarshalOptions{Deterministic: true}.Marshal(&record)
	if err != nil {
		return err
	}
	if record.Offset != math.MaxInt64 || record.Key == nil || !bytes.Equal(again, encoded) {
		return fmt.Errorf("log.v1 reads a record of seriatim.v1 as %v", &record)
	}
	if name := record.ProtoReflect().Descriptor().FullName(); name != "log.v1.Record" {
		return fmt.Errorf("the old record is a %s", name)
	}
	return nil
}

// fields returns some fields, by their generated names, and what they contain.
func fields(name string, message proto.Message) (got, expected []any) {
	const unicode = "größe 大小 😀"
	switch name {
	case "record_extreme":
		m := message.(*seriatimv1.Record)
		got = []any{m.Offset, m.Term, m.AppendTimeUs, m.Type, m.Key, len(m.Headers), m.Headers[1].Name, *m.ClientTimeUs}
		expected = []any{
			uint64(math.MaxInt64), uint64(1<<53 + 1), uint64(math.MaxUint64), uint32(math.MaxUint32), []byte{}, 3, unicode,
			uint64(math.MaxUint64 - 1),
		}
	case "record_without_key":
		m := message.(*seriatimv1.Record)
		got = []any{m.Key == nil, m.ClientTimeUs == nil, string(m.Value)}
		expected = []any{true, true, "v"}
	case "get_node_response_full":
		m := message.(*seriatimv1.GetNodeResponse)
		damaged := m.Groups[1].DamagedRanges
		got = []any{
			m.Metrics[2].Value, m.Metrics[0].Labels["ä"], m.Metrics[4].GetHistogram().Buckets[1].UpperBound,
			m.Groups[1].Role, m.Disk.State, damaged[0].NextOffset != nil, damaged[1].NextOffset != nil,
		}
		expected = []any{
			&seriatimv1.Metric_Gauge{Gauge: -(1<<53 + 1)}, "1", math.Inf(1),
			seriatimv1.Role_ROLE_LEADER, seriatimv1.DiskState_DISK_STATE_FULL, true, false,
		}
	case "update_log_request_full":
		m := message.(*seriatimv1.UpdateLogRequest)
		got = []any{*m.LogId, *m.Config.MinRetainedBytes, m.Config.MaxRecordBytes == nil, len(m.UpdateMask.Paths)}
		expected = []any{"", uint64(0), true, 3}
	case "create_log_request_full":
		m := message.(*seriatimv1.CreateLogRequest)
		got = []any{m.LogId != nil, *m.Config.Replicas, m.Config.Labels["team"], m.ValidateOnly}
		expected = []any{true, uint32(math.MaxUint32), unicode, true}
	case "update_cluster_request_full":
		m := message.(*seriatimv1.UpdateClusterRequest)
		got = []any{
			*m.Settings.CreateOnAppend, m.Settings.DeletedLogRetention != nil, *m.Settings.LogDefaults.Replicas,
			m.Settings.LogDefaults.RetentionAge == nil, *m.ExpectedRevision, m.UpdateMask.Paths[0],
		}
		expected = []any{false, true, uint32(0), true, uint64(0), "log_defaults.retention_age"}
	}
	return got, expected
}
