import com.google.protobuf.ByteString;
import com.google.protobuf.DescriptorProtos.FileDescriptorProto;
import com.google.protobuf.DescriptorProtos.FileDescriptorSet;
import com.google.protobuf.Descriptors.Descriptor;
import com.google.protobuf.Descriptors.EnumValueDescriptor;
import com.google.protobuf.Descriptors.FieldDescriptor;
import com.google.protobuf.Descriptors.FileDescriptor;
import com.google.protobuf.DynamicMessage;
import com.google.protobuf.Message;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;

/**
 * Prints the golden responses as protobuf-java decodes them: Decode GOLDEN DESCRIPTORS.
 *
 * <p>Uses only the API that versions 2.6 to 4 have in common. 2.6 treats proto3 as proto2, which is the same on the wire.
 */
public final class Decode {
    private static final Map<String, Descriptor> TYPES = new HashMap<>();

    public static void main(String[] args) throws Exception {
        Path golden = Path.of(args[0]);
        Map<String, FileDescriptor> files = new HashMap<>();
        for (FileDescriptorProto file : FileDescriptorSet.parseFrom(Files.readAllBytes(Path.of(args[1]))).getFileList()) {
            List<FileDescriptor> imported = new ArrayList<>();
            file.getDependencyList().forEach(name -> imported.add(files.get(name)));
            FileDescriptor built = FileDescriptor.buildFrom(file, imported.toArray(new FileDescriptor[0]));
            files.put(file.getName(), built);
            built.getMessageTypes().forEach(type -> TYPES.put(type.getFullName(), type));
        }
        PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        for (String line : Files.readAllLines(golden.resolve("samples.txt"))) {
            String[] words = line.split(" ");
            byte[] bytes = Files.readAllBytes(golden.resolve(words[0] + ".bin"));
            Message read = DynamicMessage.parseFrom(TYPES.get(words[1]), bytes);
            out.println("{\"name\":" + quoted(words[0]) + ",\"value\":" + text(read) + "}");
        }
    }

    private static String text(Message message) throws Exception {
        Descriptor type = message.getDescriptorForType();
        if (type.getFullName().equals("google.protobuf.Any")) {
            String url = (String) message.getField(type.findFieldByName("type_url"));
            ByteString value = (ByteString) message.getField(type.findFieldByName("value"));
            Descriptor inner = TYPES.get(url.substring(url.lastIndexOf('/') + 1));
            String fields = text(DynamicMessage.parseFrom(inner, value)).substring(1);
            return "{\"@type\":" + quoted(url) + (fields.equals("}") ? "" : ",") + fields;
        }
        List<String> fields = new ArrayList<>();
        for (Map.Entry<FieldDescriptor, Object> entry : message.getAllFields().entrySet()) {
            String shown = shown(entry.getKey(), entry.getValue());
            if (shown != null) {
                fields.add(quoted(entry.getKey().getName()) + ":" + shown);
            }
        }
        return "{" + String.join(",", fields) + "}";
    }

    /** Returns null for a field without presence that has its default value: it counts as absent. */
    private static String shown(FieldDescriptor field, Object value) throws Exception {
        boolean isMessage = field.getJavaType() == FieldDescriptor.JavaType.MESSAGE;
        if (field.isRepeated()) {
            boolean isMap = isMessage && field.getMessageType().getName().endsWith("Entry");
            List<String> items = new ArrayList<>();
            for (Object item : (List<?>) value) {
                items.add(isMap ? mapEntry((Message) item) : one(field, item));
            }
            return (isMap ? "{" : "[") + String.join(",", items) + (isMap ? "}" : "]");
        }
        boolean hasPresence = isMessage || field.getContainingOneof() != null;
        String shown = one(field, value);
        return hasPresence || !List.of("\"0\"", "\"\"", "false").contains(shown) ? shown : null;
    }

    private static String mapEntry(Message entry) throws Exception {
        Descriptor type = entry.getDescriptorForType();
        FieldDescriptor value = type.findFieldByName("value");
        return quoted((String) entry.getField(type.findFieldByName("key"))) + ":" + one(value, entry.getField(value));
    }

    private static String one(FieldDescriptor field, Object value) throws Exception {
        switch (field.getType()) {
            case MESSAGE:
                return text((Message) value);
            case BOOL:
                return value.toString();
            case STRING:
                return quoted((String) value);
            case BYTES:
                return quoted(hex(((ByteString) value).toByteArray()));
            case UINT64:
            case FIXED64:
                return quoted(Long.toUnsignedString((Long) value));
            case UINT32:
            case FIXED32:
                return quoted(Integer.toUnsignedString((Integer) value));
            case ENUM:
                return quoted(Integer.toString(((EnumValueDescriptor) value).getNumber()));
            default:
                return quoted(value.toString());
        }
    }

    private static String hex(byte[] bytes) {
        StringBuilder hex = new StringBuilder();
        for (byte b : bytes) {
            hex.append(String.format("%02x", b));
        }
        return hex.toString();
    }

    private static String quoted(String text) {
        return text.chars()
                .mapToObj(c -> c < 0x20 || c == '"' || c == '\\' ? String.format("\\u%04x", c) : String.valueOf((char) c))
                .collect(Collectors.joining("", "\"", "\""));
    }
}
