import java.io.BufferedReader;
import java.io.FileInputStream;
import java.io.InputStreamReader;
import java.security.KeyStore;
import java.security.Provider;
import java.security.Security;
import java.security.cert.CertificateFactory;
import java.util.Arrays;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.KeyStoreBuilderParameters;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.TrustManagerFactory;

/**
 * TlsClient SUNPKCS11-CONFIGURATION CA PORT [VERSION…]: TLS with the key of alias "agent", by these versions, else by
 * TLSv1.3 and TLSv1.2. See docs/AGENTS.md.
 */
public class TlsClient {
    public static void main(String[] args) throws Exception {
        Provider provider = Security.getProvider("SunPKCS11").configure(args[0]);
        Security.addProvider(provider);
        KeyStore keys = KeyStore.getInstance("PKCS11", provider);
        keys.load(null, null);
        KeyManagerFactory keyManagers = KeyManagerFactory.getInstance("NewSunX509");
        keyManagers.init(new KeyStoreBuilderParameters(
            KeyStore.Builder.newInstance(keys, new KeyStore.PasswordProtection(null))));
        KeyStore trusted = KeyStore.getInstance(KeyStore.getDefaultType());
        trusted.load(null, null);
        trusted.setCertificateEntry("ca",
            CertificateFactory.getInstance("X.509").generateCertificate(new FileInputStream(args[1])));
        TrustManagerFactory trustManagers = TrustManagerFactory.getInstance("PKIX");
        trustManagers.init(trusted);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(keyManagers.getKeyManagers(), trustManagers.getTrustManagers(), null);
        String[] versions = args.length > 3 ? Arrays.copyOfRange(args, 3, args.length)
                                            : new String[] {"TLSv1.3", "TLSv1.2"};
        for (String version : versions) {
            try (SSLSocket socket = (SSLSocket) context.getSocketFactory()
                     .createSocket("localhost", Integer.parseInt(args[2]))) {
                socket.setEnabledProtocols(new String[] {version});
                socket.startHandshake();
                socket.getOutputStream().write("GET / HTTP/1.0\r\n\r\n".getBytes());
                String line = new BufferedReader(new InputStreamReader(socket.getInputStream())).readLine();
                System.out.println(line.split(" ")[1] + " " + socket.getSession().getProtocol());
            }
        }
    }
}
