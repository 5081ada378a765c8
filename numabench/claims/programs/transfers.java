// Bytes from a source to a target by one method, as a Java program would do it: Transfers METHOD FROM TO SOURCE OFFSET BYTES FOLDER.
// Says how many bytes arrived and their Adler-32; which system calls carried them is for strace to see.
import java.io.FileInputStream;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.Channels;
import java.nio.channels.FileChannel;
import java.nio.channels.Pipe;
import java.nio.channels.ReadableByteChannel;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.channels.WritableByteChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.concurrent.Callable;
import java.util.concurrent.FutureTask;
import java.util.zip.Adler32;

class Transfers {
    record Ends(SocketChannel near, SocketChannel far) {}

    static Path folder;

    static Ends listen(String kind) throws Exception {
        boolean unix = kind.equals("unix");
        try (var server = unix ? ServerSocketChannel.open(StandardProtocolFamily.UNIX) : ServerSocketChannel.open()) {
            server.bind(unix ? UnixDomainSocketAddress.of(folder.resolve("socket-" + ProcessHandle.current().pid()))
                    : new InetSocketAddress(InetAddress.getLoopbackAddress(), 0));
            SocketChannel near = SocketChannel.open(server.getLocalAddress());
            return new Ends(near, server.accept());
        }
    }

    static String drain(ReadableByteChannel from) throws Exception {
        Adler32 sum = new Adler32();
        ByteBuffer buffer = ByteBuffer.allocateDirect(1 << 16);
        long bytes = 0;
        while (from.read(buffer) >= 0) {
            buffer.flip();
            bytes += buffer.remaining();
            sum.update(buffer);
            buffer.clear();
        }
        return "arrived " + bytes + " " + sum.getValue();
    }

    static FutureTask<String> begin(Callable<String> work) {
        FutureTask<String> task = new FutureTask<>(work);
        Thread thread = new Thread(task);
        thread.setDaemon(true);
        thread.start();
        return task;
    }

    static void all(FileChannel file, long offset, long bytes, WritableByteChannel to) throws Exception {
        for (long done = 0; done < bytes;) {
            long moved = file.transferTo(offset + done, bytes - done, to);
            if (moved == 0) throw new java.io.EOFException("transferTo moves nothing at " + (offset + done));
            done += moved;
        }
    }

    public static void main(String[] given) throws Exception {
        String method = given[0], from = given[1], to = given[2];
        Path source = Path.of(given[3]), target;
        long offset = Long.parseLong(given[4]), bytes = Long.parseLong(given[5]);
        folder = Path.of(given[6]);
        target = folder.resolve("target");

        if (method.equals("files_copy")) {
            Files.copy(source, target);
            System.out.println(drain(FileChannel.open(target)));
            return;
        }
        if (method.equals("socket_stream")) { // java.net.Socket, whose stream is no channel
            try (ServerSocket server = new ServerSocket(0, 1, InetAddress.getLoopbackAddress());
                    Socket near = new Socket(server.getInetAddress(), server.getLocalPort()); Socket far = server.accept()) {
                FutureTask<String> arrived = begin(() -> drain(Channels.newChannel(far.getInputStream())));
                try (InputStream file = new FileInputStream(source.toFile())) {
                    file.skipNBytes(offset);
                    file.transferTo(near.getOutputStream());
                }
                near.shutdownOutput();
                System.out.println(arrived.get());
            }
            return;
        }

        FutureTask<String> arrived = null;
        WritableByteChannel out;
        if (to.equals("file") || to.equals("append")) {
            out = to.equals("file") ? FileChannel.open(target, StandardOpenOption.CREATE, StandardOpenOption.WRITE)
                    : FileChannel.open(target, StandardOpenOption.CREATE, StandardOpenOption.APPEND);
        } else if (to.equals("pipe")) {
            Pipe pipe = Pipe.open();
            arrived = begin(() -> drain(pipe.source()));
            out = pipe.sink();
        } else {
            Ends ends = listen(to);
            arrived = begin(() -> drain(ends.far()));
            out = ends.near();
        }

        if (from.equals("file")) {
            try (FileChannel file = FileChannel.open(source)) {
                switch (method) {
                    case "transfer_to" -> all(file, offset, bytes, out);
                    case "wrapped_channel" -> { // any WritableByteChannel that is none of the JDK's own
                        WritableByteChannel inner = out;
                        all(file, offset, bytes, new WritableByteChannel() {
                            public int write(ByteBuffer buffer) throws java.io.IOException { return inner.write(buffer); }
                            public boolean isOpen() { return inner.isOpen(); }
                            public void close() throws java.io.IOException { inner.close(); }
                        });
                    }
                    case "channel_of_stream" -> all(file, offset, bytes, Channels.newChannel(new Through(out)));
                    case "mapped" -> {
                        ByteBuffer mapped = file.map(FileChannel.MapMode.READ_ONLY, offset, bytes);
                        while (mapped.hasRemaining()) out.write(mapped);
                    }
                    default -> throw new IllegalArgumentException(method);
                }
            }
        } else { // a connection as the source
            Ends ends = listen(from);
            byte[] content = Files.readAllBytes(source);
            begin(() -> {
                ByteBuffer left = ByteBuffer.wrap(content, (int) offset, (int) bytes);
                while (left.hasRemaining()) ends.far().write(left);
                ends.far().close();
                return "";
            });
            long done = 0;
            while (done < bytes) done += ((FileChannel) out).transferFrom(ends.near(), done, bytes - done);
        }
        out.close();
        System.out.println(arrived != null ? arrived.get() : drain(FileChannel.open(target)));
    }

    // A stream over a channel that is not one of the JDK's own, which it would look through.
    static class Through extends OutputStream {
        private final WritableByteChannel out;

        Through(WritableByteChannel out) { this.out = out; }

        public void write(int one) throws java.io.IOException { write(new byte[] {(byte) one}, 0, 1); }

        public void write(byte[] bytes, int from, int count) throws java.io.IOException {
            ByteBuffer left = ByteBuffer.wrap(bytes, from, count);
            while (left.hasRemaining()) out.write(left);
        }
    }
}
