package seriatim.client;

import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;
import java.util.function.Consumer;
import java.util.Map;

/** A command line, read from left to right. */
final class Arguments {
    private final Deque<String> rest;

    Arguments(String... words) {
        rest = new ArrayDeque<>(List.of(words));
    }

    /** Reads the next options, each a name and its value, up to the first other word. */
    void options(Map<String, Consumer<String>> known) throws UsageException {
        while (!rest.isEmpty() && rest.peek().startsWith("--")) {
            String name = rest.pop();
            if (name.equals("--")) {
                return;
            }
            Consumer<String> option = known.get(name);
            if (option == null || rest.isEmpty()) {
                throw new UsageException(option == null ? "there is no option " + name : name + " needs a value");
            }
            option.accept(rest.pop());
        }
    }

    /** Returns the next word. */
    String word(String what) throws UsageException {
        if (rest.isEmpty()) {
            throw new UsageException(what + " is missing");
        }
        return rest.pop();
    }

    /** Returns the remaining words. */
    List<String> rest() {
        var words = new ArrayList<>(rest);
        rest.clear();
        return words;
    }

    /** An invalid command line. */
    static final class UsageException extends Exception {
        UsageException(String message) {
            super(message);
        }
    }
}
