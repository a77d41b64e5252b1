"""A CONNECT proxy on loopback that sends every host to one port of ours.

    proxy.py PORT LOG

It stands for a DNS and a certificate authority of the site's own: clients
believe that they speak to the hosts which their lock file names. It prints its
port, and writes each host that it was asked for into LOG.
"""

import asyncio
import sys


async def copy(reader, writer):
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def main(port, log):
    async def serve(reader, writer):
        request = (await reader.readuntil(b"\r\n\r\n")).split(b" ")
        if request[0] != b"CONNECT":
            writer.write(b"HTTP/1.1 405 only CONNECT\r\n\r\n")
            writer.close()
            return
        with open(log, "a", encoding="ascii") as f:
            f.write(request[1].decode("ascii") + "\n")
        r, w = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.gather(copy(reader, w), copy(r, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
