/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Intrusive circular doubly linked list. A node embedded in a structure links
 * it without an allocation. No locking: the owner of the list provides it.
 */
#ifndef HOPPER_LIB_LIST_H
#define HOPPER_LIB_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list {
	struct list *next, *prev;
};

#define container_of(ptr, type, member) \
	((type *)((char *)(ptr) - offsetof(type, member)))

static inline void list_init(struct list *l)
{
	l->next = l->prev = l;
}

static inline bool list_is_empty(const struct list *l)
{
	return l->next == l;
}

static inline void list_insert_between(struct list *n, struct list *prev, struct list *next)
{
	n->prev = prev;
	n->next = next;
	prev->next = n;
	next->prev = n;
}

static inline void list_push_back(struct list *l, struct list *n)
{
	list_insert_between(n, l->prev, l);
}

static inline void list_push_front(struct list *l, struct list *n)
{
	list_insert_between(n, l, l->next);
}

/* Unlink @n and leave it an empty list, so that unlinking again is harmless. */
static inline void list_remove(struct list *n)
{
	n->prev->next = n->next;
	n->next->prev = n->prev;
	list_init(n);
}

/* First node, unlinked, or NULL. */
static inline struct list *list_pop_front(struct list *l)
{
	struct list *n = l->next;

	if (n == l)
		return NULL;
	list_remove(n);
	return n;
}

/* Move all of @from to the end of @to; @from is left empty. */
static inline void list_splice_back(struct list *to, struct list *from)
{
	if (list_is_empty(from))
		return;
	from->next->prev = to->prev;
	to->prev->next = from->next;
	from->prev->next = to;
	to->prev = from->prev;
	list_init(from);
}

#define list_for_each(pos, l) \
	for (struct list *pos = (l)->next; pos != (l); pos = pos->next)

#define list_for_each_safe(pos, l) \
	for (struct list *pos = (l)->next, *pos##_next = pos->next; pos != (l); \
	     pos = pos##_next, pos##_next = pos->next)

#endif
