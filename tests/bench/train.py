#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Trains a small network on an ImageFolder with a stock DataLoader.

  train.py make DIR COUNT            PNG files of Fashion-MNIST in class folders
  train.py train DIR EPOCHS LABEL    prints one JSON line per epoch

An epoch's stall is the time the training loop waited for its next batch.
"""
import gzip, json, os, struct, sys, time, zlib


def png(pixels, width, height):
    """An 8-bit grey PNG (RFC 2083) of rows of bytes."""
    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))
    rows = b"".join(b"\0" + pixels[y * width:(y + 1) * width] for y in range(height))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def bar(text, done, total):
    if sys.stderr.isatty():
        filled = 30 * done // total
        sys.stderr.write("\r%s [%s%s] %d/%d " % (text, "#" * filled, "." * (30 - filled), done, total))
        if done == total:
            sys.stderr.write("\r\033[K")
        sys.stderr.flush()
    elif done == total or done % max(1, total // 4) == 0:
        sys.stderr.write("%s: %d of %d\n" % (text, done, total))


def make(root, count):
    base = "/usr/share/datasets/fashion-mnist/train-"
    with gzip.open(base + "images-idx3-ubyte.gz") as f:
        images = f.read()[16:]
    with gzip.open(base + "labels-idx1-ubyte.gz") as f:
        labels = f.read()[8:]
    for i in range(count):
        folder = os.path.join(root, "class%d" % labels[i])
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, "%05d.png" % i), "wb") as f:
            f.write(png(images[i * 784:(i + 1) * 784], 28, 28))


def train(root, epochs, label):
    import torch
    from torch import nn
    from torchvision import datasets, transforms

    torch.manual_seed(1)
    torch.set_num_threads(1)
    model = nn.Sequential(nn.Conv2d(1, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 16, 3, 2), nn.ReLU(),
                          nn.Flatten(), nn.Linear(16 * 6 * 6, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    loss_of = nn.CrossEntropyLoss()
    started = time.monotonic()
    data = datasets.ImageFolder(root, transforms.Compose([transforms.Grayscale(), transforms.ToTensor()]))
    scanned = time.monotonic() - started
    loader = torch.utils.data.DataLoader(data, batch_size=64, shuffle=True, num_workers=2)
    for epoch in range(epochs):
        started = waited_from = time.monotonic()
        stall = total_loss = right = seen = 0
        for batch, (images, labels) in enumerate(loader, 1):
            stall += time.monotonic() - waited_from
            optimizer.zero_grad()
            out = model(images)
            loss = loss_of(out, labels)
            loss.backward()
            optimizer.step()
            total_loss += loss.item() * len(labels)
            right += int((out.argmax(1) == labels).sum())
            seen += len(labels)
            bar("%s, epoch %d" % (label, epoch + 1), batch, len(loader))
            waited_from = time.monotonic()
        print(json.dumps({"label": label, "epoch": epoch + 1, "scan_s": scanned,
                          "seconds": time.monotonic() - started, "stall_s": stall,
                          "loss": total_loss / seen, "accuracy": right / seen}), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(sys.argv[2], int(sys.argv[3]))
    else:
        train(sys.argv[2], int(sys.argv[3]), sys.argv[4])
