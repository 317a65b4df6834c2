// A program that knows SPIFFE and nothing of attestd: java-spiffe (io.spiffe:java-spiffe-provider), at the Workload API that
// SPIFFE_ENDPOINT_SOCKET names. Answers are lines of JSON.
//
//   SpiffeClient svid                     fetchX509Context once
//   SpiffeClient watch                    DefaultX509Source: a line at first and at each update
//   SpiffeClient refused                  DefaultX509Source of who is given no key, with a timeout
//   SpiffeClient bundles                  fetchX509Bundles, fetchJwtBundles
//   SpiffeClient token AUDIENCE           fetchJwtSvid, judged by validateJwtSvid; another from DefaultJwtSource, judged by its own bundles
//   SpiffeClient validate AUDIENCE TOKEN  validateJwtSvid
//   SpiffeClient serve PEER-ID            mutual TLS by SpiffeSslContextFactory: a line with the port, then one for each connection
//   SpiffeClient call ADDRESS PEER-ID     the other end of it
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.spiffe.provider.SpiffeSslContextFactory;
import io.spiffe.provider.SpiffeSslContextFactory.SslContextOptions;
import io.spiffe.spiffeid.SpiffeId;
import io.spiffe.svid.jwtsvid.JwtSvid;
import io.spiffe.svid.x509svid.X509Svid;
import io.spiffe.svid.x509svid.X509SvidValidator;
import io.spiffe.workloadapi.DefaultJwtSource;
import io.spiffe.workloadapi.DefaultWorkloadApiClient;
import io.spiffe.workloadapi.DefaultX509Source;
import io.spiffe.workloadapi.JwtSource;
import io.spiffe.workloadapi.JwtSourceOptions;
import io.spiffe.workloadapi.WorkloadApiClient;
import io.spiffe.workloadapi.X509Source;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.security.cert.X509Certificate;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import java.util.logging.LogManager;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLServerSocket;
import javax.net.ssl.SSLSocket;

public class SpiffeClient {
    private static final Duration TIMEOUT = Duration.ofSeconds(30);

    private static String text(Object value) {
        if (value instanceof Number || value instanceof Boolean) {
            return value.toString();
        }
        if (value instanceof Iterable) {
            List<String> all = new ArrayList<>();
            ((Iterable<?>) value).forEach(one -> all.add(text(one)));
            return "[" + String.join(",", all) + "]";
        }
        StringBuilder quoted = new StringBuilder("\"");
        for (char c : String.valueOf(value).toCharArray()) {
            quoted.append(c == '"' || c == '\\' || c < ' ' ? String.format("\\u%04x", (int) c) : c);
        }
        return quoted.append('"').toString();
    }

    // say(name, value, name, value, …)
    private static synchronized void say(Object... pairs) {
        List<String> members = new ArrayList<>();
        for (int i = 0; i < pairs.length; i += 2) {
            members.add(text(pairs[i]) + ":" + text(pairs[i + 1]));
        }
        System.out.println("{" + String.join(",", members) + "}");
    }

    // Where the answer came by gRPC, its code and message; and all words that the library's user reads, the causes' too.
    private static void ended(Throwable error) {
        StringBuilder said = new StringBuilder();
        Status status = null;
        for (Throwable one = error; one != null; one = one.getCause()) {
            said.append(one).append('\n');
            if (one instanceof StatusRuntimeException) {
                status = ((StatusRuntimeException) one).getStatus();
            }
        }
        say("code", status == null ? "error" : status.getCode(), "message", status == null ? said : status.getDescription(),
            "said", said);
    }

    private static String serial(X509Certificate cert) {
        return cert.getSerialNumber().toString(16);
    }

    private static void show(X509Svid svid, X509Source source) throws Exception {
        X509Certificate leaf = svid.getLeaf();
        Map<Object, Object> line = new LinkedHashMap<>();
        line.put("id", svid.getSpiffeId());
        line.put("serial", serial(leaf));
        line.put("chain", svid.getChain().size());
        line.put("minutes", (leaf.getNotAfter().getTime() - leaf.getNotBefore().getTime()) / 60000);
        if (source != null) {
            X509SvidValidator.verifyChain(svid.getChain(), source);
            line.put("verified", true);
        }
        List<Object> pairs = new ArrayList<>();
        line.forEach((name, value) -> Collections.addAll(pairs, name, value));
        say(pairs.toArray());
    }

    private static X509Source source(Duration timeout) throws Exception {
        return DefaultX509Source.newSource(DefaultX509Source.X509SourceOptions.builder().initTimeout(timeout).build());
    }

    // The source tells nobody of an update: whoever wants to know looks, as each new connection does.
    private static void watch() throws Exception {
        try (X509Source source = source(TIMEOUT)) {
            for (X509Svid last = null;; Thread.sleep(100)) {
                X509Svid now = source.getX509Svid();
                if (now != last) {
                    show(now, source);
                }
                last = now;
            }
        }
    }

    private static void bundles() throws Exception {
        try (WorkloadApiClient client = DefaultWorkloadApiClient.newClient()) {
            var tokens = client.fetchJwtBundles();
            for (var one : client.fetchX509Bundles().getBundles().values()) {
                List<String> serials = new ArrayList<>();
                one.getX509Authorities().forEach(root -> serials.add(serial(root)));
                say("domain", one.getTrustDomain(), "serials", serials,
                    "kids", new TreeSet<>(tokens.getBundleForTrustDomain(one.getTrustDomain()).getJwtAuthorities().keySet()));
            }
        }
    }

    private static void token(String audience) throws Exception {
        try (WorkloadApiClient client = DefaultWorkloadApiClient.newClient()) {
            JwtSvid got = client.fetchJwtSvid(audience); // a source would hide a refusal behind its timeout
            JwtSvid remote = client.validateJwtSvid(got.getToken(), audience);
            JwtSvid local;
            try (JwtSource source = DefaultJwtSource.newSource(JwtSourceOptions.builder().initTimeout(TIMEOUT).build())) {
                local = JwtSvid.parseAndValidate(source.fetchJwtSvid(audience).getToken(), source, Collections.singleton(audience));
            }
            say("code", "OK", "id", got.getSpiffeId(), "remote", remote.getSpiffeId(), "local", local.getSpiffeId(),
                "token", got.getToken());
        }
    }

    private static SSLContext context(X509Source source, String peer) throws Exception {
        return SpiffeSslContextFactory.getSslContext(SslContextOptions.builder().x509Source(source)
            .acceptedSpiffeIdsSupplier(() -> Collections.singleton(SpiffeId.parse(peer))).build());
    }

    private static void serve(String peer) throws Exception {
        try (X509Source source = source(TIMEOUT);
                SSLServerSocket listener = (SSLServerSocket) context(source, peer).getServerSocketFactory().createServerSocket(0)) {
            listener.setNeedClientAuth(true);
            say("port", listener.getLocalPort());
            while (true) {
                try (SSLSocket socket = (SSLSocket) listener.accept()) {
                    socket.setSoTimeout(20000);
                    socket.startHandshake();
                    X509Certificate leaf = (X509Certificate) socket.getSession().getPeerCertificates()[0];
                    String asked = new BufferedReader(new InputStreamReader(socket.getInputStream())).readLine();
                    socket.getOutputStream().write(("to " + serial(leaf) + ": " + asked + "\n").getBytes());
                    say("served", serial(leaf));
                } catch (java.io.IOException error) {
                    StringBuilder said = new StringBuilder();
                    for (Throwable one = error; one != null; one = one.getCause()) {
                        said.append(one.getMessage()).append(". ");
                    }
                    say("refused", said);
                }
            }
        }
    }

    private static void call(String address, String peer) throws Exception {
        String[] at = address.split(":");
        try (X509Source source = source(TIMEOUT);
                SSLSocket socket = (SSLSocket) context(source, peer).getSocketFactory().createSocket(at[0], Integer.parseInt(at[1]))) {
            socket.setSoTimeout(20000);
            socket.startHandshake();
            socket.getOutputStream().write("a trade\n".getBytes());
            String answer = new BufferedReader(new InputStreamReader(socket.getInputStream())).readLine();
            if (answer == null) {
                say("code", "error", "message", "the server ended the connection");
                return;
            }
            say("code", "OK", "answer", answer, "server", serial((X509Certificate) socket.getSession().getPeerCertificates()[0]));
        }
    }

    private static void refused() throws Exception {
        source(Duration.ofSeconds(5)).close();
        say("code", "OK", "message", "");
    }

    public static void main(String[] args) {
        LogManager.getLogManager().reset(); // what it logs is on standard error, among the lines
        try {
            switch (args.length == 0 ? "" : args[0] + (args.length - 1)) {
                case "svid0":
                    try (WorkloadApiClient client = DefaultWorkloadApiClient.newClient()) {
                        show(client.fetchX509Context().getDefaultSvid(), null);
                    }
                    break;
                case "watch0": watch(); break;
                case "refused0": refused(); break;
                case "bundles0": bundles(); break;
                case "token1": token(args[1]); break;
                case "validate2":
                    try (WorkloadApiClient client = DefaultWorkloadApiClient.newClient()) {
                        say("code", "OK", "id", client.validateJwtSvid(args[2], args[1]).getSpiffeId());
                    }
                    break;
                case "serve1": serve(args[1]); break;
                case "call2": call(args[1], args[2]); break;
                default:
                    System.err.println("SpiffeClient: no command " + String.join(" ", args) + ": see SpiffeClient.java");
                    System.exit(2);
            }
        } catch (Throwable error) {
            ended(error);
        }
        System.exit(0); // the library's threads would stay
    }
}
