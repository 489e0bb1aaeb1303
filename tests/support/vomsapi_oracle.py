"""Asks libvomsapi about proxies: lines of file, VOMS directory, CA directory in, one verdict a line out."""

from __future__ import annotations

import ctypes
import sys


def main() -> None:
    library, libc = ctypes.CDLL("libvomsapi.so.1"), ctypes.CDLL(None)
    library.VOMS_Init.restype = libc.fopen.restype = ctypes.c_void_p
    library.VOMS_Init.argtypes = libc.fopen.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
    library.VOMS_RetrieveFromFile.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int)]
    library.VOMS_ErrorMessage.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_int]
    library.VOMS_ErrorMessage.restype = ctypes.c_char_p
    library.VOMS_Destroy.argtypes = libc.fclose.argtypes = [ctypes.c_void_p]
    for line in sys.stdin:
        path, voms_dir, cert_dir = line.rstrip("\n").split("\t")
        state, file, error = library.VOMS_Init(voms_dir.encode(), cert_dir.encode()), libc.fopen(path.encode(), b"r"), ctypes.c_int(0)
        if not file or not state:
            print("refuses: cannot be opened", flush=True)
            continue
        good = library.VOMS_RetrieveFromFile(file, 0, state, ctypes.byref(error))
        text = "" if good else library.VOMS_ErrorMessage(state, error, ctypes.create_string_buffer(4096), 4096).decode("utf-8", "replace")
        print("accepts" if good else f"refuses: {' '.join(text.split())}", flush=True)
        libc.fclose(file)
        library.VOMS_Destroy(state)


if __name__ == "__main__":
    main()
