# SPDX-License-Identifier: Apache-2.0
"""What placement.sh and pages.sh know of loaders and of the machine."""
import json, os, random, time

BATCH = 10


def cpus_of(node):
    found = set()
    for part in open("/sys/devices/system/node/node%d/cpulist" % node).read().split(","):
        first, _, last = part.strip().partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def torch_order(seed, count):
    """torch.randperm(count) of a generator with this seed, without torch, which takes minutes to load in the guest"""
    state = [seed]
    for i in range(1, 624):
        state.append((1812433253 * (state[-1] ^ state[-1] >> 30) + i) & 0xffffffff)
    words = random.Random()
    words.setstate((3, (*state, 624), None))
    p = list(range(count))
    for i in range(count - 1):
        j = i + words.getrandbits(32) % (count - i)
        p[i], p[j] = p[j], p[i]
    return p


def deal(order):
    """the batches of two workers, in turn"""
    batches = [order[at:at + BATCH] for at in range(0, len(order), BATCH)]
    return batches[0::2], batches[1::2]


def largest_set(root):
    return max(json.loads(os.getxattr(root, "user.hopper.stats"))["sets"], key=lambda x: x["items"])


def wait_recognised(root, text):
    """Of the recogniser's seconds and the readers', in a guest, neither is real."""
    until = time.monotonic() + 30
    while not largest_set(root)["recognised"].startswith(text):
        assert time.monotonic() < until, "not recognised: " + text
        time.sleep(0.05)
