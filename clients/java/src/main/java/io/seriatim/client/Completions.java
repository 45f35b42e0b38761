package io.seriatim.client;

import java.util.ArrayDeque;
import java.util.Queue;
import java.util.concurrent.Executor;
import java.util.concurrent.RejectedExecutionException;

/**
 * Runs tasks one after the other, in order, on threads of an executor. The futures of a producer are completed here, so that code
 * of the application, which hangs on them, cannot delay requests.
 */
final class Completions {
    private final Executor executor;
    private final Queue<Runnable> tasks = new ArrayDeque<>();
    private boolean isScheduled;
    private volatile Thread thread;

    Completions(Executor executor) {
        this.executor = executor;
    }

    /** Returns whether the calling thread runs a task, and so must not wait for another one. */
    boolean isCurrentThread() {
        return Thread.currentThread() == thread;
    }

    void execute(Runnable task) {
        synchronized (tasks) {
            tasks.add(task);
            if (isScheduled) {
                return;
            }
            isScheduled = true;
        }
        try {
            executor.execute(this::drain);
        } catch (RejectedExecutionException closed) {
            // The client was closed once all its producers had ended. Only their flush and close still have tasks.
            drain();
        }
    }

    private void drain() {
        thread = Thread.currentThread();
        while (true) {
            Runnable task;
            synchronized (tasks) {
                task = tasks.poll();
                if (task == null) {
                    thread = null;
                    isScheduled = false;
                    return;
                }
            }
            try {
                task.run();
            } catch (RuntimeException | Error failed) {
                Cluster.LOGGER.log(System.Logger.Level.WARNING, "a callback of a record has failed", failed);
            }
        }
    }
}
