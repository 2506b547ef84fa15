"""File systems of others on a node: programs for its python3 that mount one, say so, and keep it
until their stdin is closed.
"""

from __future__ import annotations

# An ordinary user's, DIRECTORY OPTIONS ["answering"], by the node's own fusermount, under the name
# of ours. It answers nothing, or as long as it is not stopped what the next fusermount asks of it.
USERS = """
import ctypes, os, struct, sys
libfuse = ctypes.CDLL("libfuse.so.2", use_errno=True)
class Args(ctypes.Structure):
    _fields_ = [("argc", ctypes.c_int), ("argv", ctypes.POINTER(ctypes.c_char_p)),
                ("allocated", ctypes.c_int)]
words = [b"x", b"-o", b"fsname=mountpoint-s3,nonempty" + sys.argv[2].encode()]
argv = (ctypes.c_char_p * len(words))(*words)
args = Args(len(words), argv, 0)
device = libfuse.fuse_mount_compat25(sys.argv[1].encode(), ctypes.byref(args))
print("mounted" if device >= 0 else "refused", flush=True)
owner = struct.pack("<4I", 0o40755, 2, os.getuid(), os.getgid())
answers = {
    3: bytes(16) + struct.pack("<6Q3I", 1, *[0] * 8) + owner + bytes(12),  # GETATTR
    17: bytes(80),  # STATFS
    26: struct.pack("<4I2H2I2H8I", 7, 31, 1 << 17, 0, 12, 9, 1 << 17, 1, 32, *[0] * 9),  # INIT
    34: b"",  # ACCESS
}
while sys.argv[3:] == ["answering"]:
    _, call, number = struct.unpack_from("<IIQ", os.read(device, (1 << 17) + 4096))
    answer = answers.get(call)
    error = 0 if answer is not None else -38
    data = answer or b""
    os.write(device, struct.pack("<IiQ", 16 + len(data), error, number) + data)
sys.stdin.read()
"""

# DIRECTORY, of which nobody ever reads the requests: like a server that has gone.
ROOTS = """
import ctypes, os, sys
device = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other"
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b"server:/slurm", sys.argv[1].encode(), b"fuse", 6, options.encode()):
    sys.exit(os.strerror(ctypes.get_errno()))
print("hangs", flush=True)
sys.stdin.read()
"""
