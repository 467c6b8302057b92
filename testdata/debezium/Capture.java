import io.debezium.engine.*;
import io.debezium.engine.format.Json;
import java.io.*;
import java.nio.file.*;
import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.*;

/** usage: Capture PROPERTIES OUT READY_FILE IDLE_SECONDS: writes every record as three lines: topic, key, value. */
public class Capture {
    public static void main(String[] a) throws Exception {
        Properties p = new Properties();
        try (var in = new FileReader(a[0])) { p.load(in); }
        var out = new PrintWriter(new OutputStreamWriter(new FileOutputStream(a[1]), "UTF-8"));
        var last = new AtomicLong(System.nanoTime());
        var streaming = new AtomicBoolean();
        var callback = new DebeziumEngine.ConnectorCallback() {
            public void pollingStarted() { }
        };
        DebeziumEngine<ChangeEvent<String, String>> engine = DebeziumEngine.create(Json.class).using(p)
            .using(callback)
            .using((ok, message, error) -> { if (error != null) { error.printStackTrace(); System.exit(1); } })
            .notifying(e -> {
                synchronized (out) {
                    out.println(e.destination()); out.println(e.key()); out.println(e.value()); out.flush();
                }
                last.set(System.nanoTime());
            }).build();
        var pool = Executors.newSingleThreadExecutor();
        pool.execute(engine);
        long idle = Long.parseLong(a[3]) * 1_000_000_000L;
        while (!Files.exists(Path.of(a[2]))) Thread.sleep(100);
        last.set(System.nanoTime());
        while (System.nanoTime() - last.get() < idle) Thread.sleep(100);
        engine.close();
        pool.shutdown();
        System.exit(0);
    }
}
