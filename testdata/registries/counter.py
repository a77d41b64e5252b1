"""A TCP relay that counts: counter.py LISTEN-PORT TARGET-PORT FILE.

FILE always holds two numbers: bytes from the client, bytes from the server,
over all connections. It is replaced whole.
"""

import asyncio
import os
import sys

listen, target, name = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
counts = [0, 0]


async def pump(reader, writer, n):
    try:
        while data := await reader.read(1 << 18):
            counts[n] += len(data)
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def serve(reader, writer):
    try:
        there = await asyncio.open_connection("127.0.0.1", target)
    except OSError:
        writer.close()
        return
    await asyncio.gather(pump(reader, there[1], 0), pump(there[0], writer, 1))


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", listen, limit=1 << 20)
    async with server:
        while True:
            with open(name + ".new", "w") as f:
                f.write("%d %d\n" % tuple(counts))
            os.replace(name + ".new", name)
            await asyncio.sleep(0.02)


asyncio.run(main())
