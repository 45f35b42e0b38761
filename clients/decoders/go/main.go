// Prints the golden responses as Go decodes them: decode (generated|dynamic) GOLDEN DESCRIPTORS.
package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	_ "google.golang.org/genproto/googleapis/rpc/errdetails"
	_ "google.golang.org/genproto/googleapis/rpc/status"
	_ "google.golang.org/protobuf/types/known/anypb"
	_ "google.golang.org/protobuf/types/known/durationpb"

	_ "github.com/seriatim-log/seriatim/clients/decoders/go/oldlogv1"
	_ "github.com/seriatim-log/seriatim/clients/go/seriatimv1"
)

// decoder decodes messages with generated code if it exists, or always with dynamic messages.
type decoder struct {
	files     *protoregistry.Files
	generated bool
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 3 {
		return fmt.Errorf("decode (generated|dynamic) GOLDEN DESCRIPTORS")
	}
	golden := args[1]
	descriptors, err := os.ReadFile(args[2])
	if err != nil {
		return err
	}
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(descriptors, &set); err != nil {
		return err
	}
	files, err := protodesc.NewFiles(&set)
	if err != nil {
		return err
	}
	d := decoder{files, args[0] == "generated"}
	samples, err := os.ReadFile(filepath.Join(golden, "samples.txt"))
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	lines := bufio.NewScanner(bytes.NewReader(samples))
	for lines.Scan() {
		name, typeName, _ := strings.Cut(lines.Text(), " ")
		encoded, err := os.ReadFile(filepath.Join(golden, name+".bin"))
		if err != nil {
			return err
		}
		value, err := d.read(typeName, encoded)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := out.Encode(map[string]any{"name": name, "value": value}); err != nil {
			return err
		}
	}
	return lines.Err()
}

func (d *decoder) read(name string, encoded []byte) (map[string]any, error) {
	message, err := d.message(protoreflect.FullName(name))
	if err != nil {
		return nil, err
	}
	if err := proto.Unmarshal(encoded, message); err != nil {
		return nil, err
	}
	return d.text(message.ProtoReflect())
}

func (d *decoder) message(name protoreflect.FullName) (proto.Message, error) {
	if d.generated {
		if found, err := protoregistry.GlobalTypes.FindMessageByName(name); err == nil {
			return found.New().Interface(), nil
		}
	}
	found, err := d.files.FindDescriptorByName(name)
	if err != nil {
		return nil, err
	}
	return dynamicpb.NewMessage(found.(protoreflect.MessageDescriptor)), nil
}

func (d *decoder) text(message protoreflect.Message) (map[string]any, error) {
	fields := map[string]any{}
	descriptor := message.Descriptor()
	if descriptor.FullName() == "google.protobuf.Any" {
		url := message.Get(descriptor.Fields().ByName("type_url")).String()
		inner, err := d.read(url[strings.LastIndex(url, "/")+1:], message.Get(descriptor.Fields().ByName("value")).Bytes())
		if err != nil {
			return nil, err
		}
		inner["@type"] = url
		return inner, nil
	}
	var failed error
	message.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		fields[string(field.Name())], failed = d.shown(field, value)
		return failed == nil
	})
	return fields, failed
}

func (d *decoder) shown(field protoreflect.FieldDescriptor, value protoreflect.Value) (any, error) {
	switch {
	case field.IsMap():
		entries := map[string]any{}
		var failed error
		value.Map().Range(func(key protoreflect.MapKey, item protoreflect.Value) bool {
			entries[key.String()], failed = d.one(field.MapValue(), item)
			return failed == nil
		})
		return entries, failed
	case field.IsList():
		items := []any{}
		for i := range value.List().Len() {
			item, err := d.one(field, value.List().Get(i))
			if err != nil {
				return nil, err
			}
			items = append(items, item)
		}
		return items, nil
	default:
		return d.one(field, value)
	}
}

func (d *decoder) one(field protoreflect.FieldDescriptor, value protoreflect.Value) (any, error) {
	switch field.Kind() {
	case protoreflect.MessageKind:
		return d.text(value.Message())
	case protoreflect.BytesKind:
		return hex.EncodeToString(value.Bytes()), nil
	case protoreflect.StringKind:
		return value.String(), nil
	case protoreflect.BoolKind:
		return value.Bool(), nil
	case protoreflect.EnumKind:
		return fmt.Sprint(value.Enum()), nil
	default:
		return fmt.Sprint(value.Interface()), nil
	}
}
