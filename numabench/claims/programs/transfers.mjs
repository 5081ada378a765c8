// Bytes from a source to a target by one method, as a program for Node.js would do it: transfers.mjs METHOD FROM TO SOURCE OFFSET BYTES FOLDER.
// Says how many bytes arrived and their Adler-32; which system calls carried them is for strace to see.
import fs from "node:fs";
import http from "node:http";
import net from "node:net";
import path from "node:path";
import { pipeline } from "node:stream/promises";

const [method, , to, source, offsetText, bytesText, folder] = process.argv.slice(2);
const offset = Number(offsetText), bytes = Number(bytesText), target = path.join(folder, "target");

async function drain(stream) {
  let count = 0, a = 1, b = 0;
  for await (const piece of stream) {
    count += piece.length;
    for (const byte of piece) {
      a = (a + byte) % 65521;
      b = (b + a) % 65521;
    }
  }
  console.log("arrived", count, (b * 65536 + a) >>> 0);
}

const file = () => fs.createReadStream(source, { start: offset, end: offset + bytes - 1 });

if (method === "copy_file") {
  fs.copyFileSync(source, target);
  await drain(fs.createReadStream(target));
} else if (method === "http") {
  const server = http.createServer((request, answer) => file().pipe(answer));
  server.listen(0, "127.0.0.1", () =>
    http.get({ port: server.address().port, host: "127.0.0.1", agent: false }, async (answer) => {
      await drain(answer);
      server.close();
    }));
} else {
  const server = net.createServer(async (socket) => {
    await drain(socket);
    server.close();
  });
  const where = to === "unix" ? [path.join(folder, `socket-${process.pid}`)] : [0, "127.0.0.1"];
  server.listen(...where, () => {
    const socket = net.connect(to === "unix" ? where[0] : server.address().port, () => pipeline(file(), socket));
  });
}
