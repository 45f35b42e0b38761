package io.seriatim.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;

class CompletionsTest {
    @Test
    void tasks_run_in_order_and_one_that_blocks_stops_no_caller() throws InterruptedException {
        var pool = Executors.newCachedThreadPool();
        try {
            var completions = new Completions(pool);
            var order = new CopyOnWriteArrayList<Integer>();
            var blocked = new CountDownLatch(1);
            var done = new CountDownLatch(1);
            completions.execute(() -> {
                try {
                    blocked.await();
                } catch (InterruptedException interrupted) {
                    throw new IllegalStateException(interrupted);
                }
                order.add(1);
            });
            completions.execute(() -> order.add(2));
            completions.execute(() -> {
                order.add(completions.isCurrentThread() ? 3 : -3);
                done.countDown();
            });
            assertEquals(List.of(), order);
            blocked.countDown();
            assertTrue(done.await(30, TimeUnit.SECONDS));
            assertEquals(List.of(1, 2, 3), order);
        } finally {
            pool.shutdown();
        }
    }
}
