package io.seriatim.client;

import java.lang.ref.Cleaner;
import java.util.concurrent.atomic.AtomicBoolean;

/** Notices producers and consumers that the application has dropped without closing them. */
final class Dropped {
    private static final Cleaner CLEANER = Cleaner.create();

    private Dropped() {}

    /** Ends {@code core} with a warning once {@code handle} is unreachable. Returns what to run when the handle is closed. */
    static Runnable watch(Object handle, Cluster.Member core, String what) {
        var isClosed = new AtomicBoolean();
        var registration = CLEANER.register(handle, () -> {
            if (!isClosed.get()) {
                Cluster.LOGGER.log(System.Logger.Level.WARNING, "{0} was dropped without close", what);
                core.abort(SeriatimException.closed(what));
            }
        });
        return () -> {
            isClosed.set(true);
            registration.clean();
        };
    }
}
