/* SPDX-License-Identifier: Apache-2.0 */
/* A piece is entered under every block of its file that it touches; a block has a chain. */
#include "cache/piece.h"
#include <errno.h>
#include <stdlib.h>
#include "cache/extent.h"

enum { BLOCK_SHIFT = 15 };           /* 32 KiB: a sample of 100 KB is in four chains, a chain has few */

struct link {
	struct link *next;
	struct extent *piece;
};

struct file_pieces {
	struct map64 blocks;         /* block number -> struct link, owned */
};

static uint64_t first_block(const struct extent *x)
{
	return x->start >> BLOCK_SHIFT;
}

static uint64_t last_block(const struct extent *x)
{
	return (x->start + x->len - 1) >> BLOCK_SHIFT;
}

struct extent *piece_find(const struct pieces *p, uint64_t ino, uint64_t offset, uint32_t len)
{
	const struct file_pieces *f = map64_get(&p->files, ino);

	if (!f)
		return NULL;
	for (const struct link *l = map64_get(&f->blocks, offset >> BLOCK_SHIFT); l; l = l->next) {
		if (l->piece->start <= offset && offset + len <= l->piece->start + l->piece->len)
			return l->piece;
	}
	return NULL;
}

static struct file_pieces *file_get(struct pieces *p, uint64_t ino)
{
	struct file_pieces *f = map64_get(&p->files, ino);

	if (f)
		return f;
	f = calloc(1, sizeof(*f));
	if (f && map64_put(&p->files, ino, f)) {
		free(f);
		f = NULL;
	}
	return f;
}

static void unlink_from(struct file_pieces *f, uint64_t block, const struct extent *x)
{
	struct link *head = map64_get(&f->blocks, block), **at = &head, *l;

	while ((l = *at) && l->piece != x)
		at = &l->next;
	if (!l)
		return;
	*at = l->next;
	free(l);
	if (head)
		map64_put(&f->blocks, block, head);   /* replaces: cannot fail */
	else
		map64_remove(&f->blocks, block);
}

void piece_remove(struct pieces *p, struct extent *x)
{
	struct file_pieces *f = map64_get(&p->files, x->attr.ino);

	if (!f)
		return;
	for (uint64_t b = first_block(x); b <= last_block(x); b++)
		unlink_from(f, b, x);
	if (f->blocks.count)
		return;
	map64_remove(&p->files, x->attr.ino);
	map64_clear(&f->blocks);
	free(f);
}

int piece_add(struct pieces *p, struct extent *x)
{
	struct file_pieces *f = file_get(p, x->attr.ino);

	for (uint64_t b = first_block(x); b <= last_block(x); b++) {
		struct link *l = f ? malloc(sizeof(*l)) : NULL;

		if (l)
			*l = (struct link){ map64_get(&f->blocks, b), x };
		if (!l || map64_put(&f->blocks, b, l)) {
			free(l);
			piece_remove(p, x);
			return -ENOMEM;
		}
	}
	return 0;
}

void piece_each(const struct pieces *p, uint64_t ino, uint64_t start, uint64_t end,
		void (*each)(void *arg, struct extent *x), void *arg)
{
	const struct file_pieces *f = map64_get(&p->files, ino);
	const struct link *l;
	size_t pos = 0;

	/* a record's few blocks, or all there are */
	if (f && (end - start) >> BLOCK_SHIFT < f->blocks.count) {
		for (uint64_t b = start >> BLOCK_SHIFT; b << BLOCK_SHIFT < end; b++) {
			for (l = map64_get(&f->blocks, b); l; l = l->next)
				each(arg, l->piece);
		}
		return;
	}
	while (f && (l = map64_next(&f->blocks, &pos, NULL))) {
		for (; l; l = l->next) {
			if (l->piece->start < end && l->piece->start + l->piece->len > start)
				each(arg, l->piece);
		}
	}
}

struct extent *piece_any(const struct pieces *p)
{
	size_t pos = 0, at = 0;
	const struct file_pieces *f = map64_next(&p->files, &pos, NULL);
	const struct link *l = f ? map64_next(&f->blocks, &at, NULL) : NULL;

	return l ? l->piece : NULL;
}

void pieces_clear(struct pieces *p)
{
	map64_clear(&p->files);
}
