// SPDX-License-Identifier: GPL-2.0
/*
 * News: who waits for a new generation of a map.
 *
 * Each reader is a file that remembers which generation it has told, and only its own read()
 * changes that: so what one reader has seen is no less new to the others. The map's own file is
 * one, and GPAMAP_WATCH makes more. They share what there is to know, struct gpamap_news, which
 * outlives the map; so a reader keeps neither the map open nor its VM.
 */
#include <linux/anon_inodes.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/uaccess.h>
#include "map.h"

struct gpamap_news *gpamap_news_alloc(void)
{
	struct gpamap_news *news = kzalloc(sizeof(*news), GPAMAP_GFP);

	if (!news)
		return NULL;
	refcount_set(&news->refs, 1);
	init_waitqueue_head(&news->wait);
	return news;
}

void gpamap_news_put(struct gpamap_news *news)
{
	if (refcount_dec_and_test(&news->refs))
		kfree(news);
}

/*
 * All are woken, also who waits exclusively (EPOLLEXCLUSIVE): that is one among those who share a
 * reader, and here are all readers.
 */
void gpamap_news_publish(struct gpamap_news *news, u64 generation)
{
	WRITE_ONCE(news->generation, generation);
	wake_up_interruptible_all(&news->wait);
}

void gpamap_news_close(struct gpamap_news *news)
{
	/* Pairs with gpamap_reader_read(): what was published is seen by who sees this. */
	smp_store_release(&news->closed, true);
	wake_up_interruptible_all(&news->wait);
}

static bool reader_is_behind(const struct gpamap_reader *reader)
{
	return READ_ONCE(reader->news->generation) != READ_ONCE(reader->seen);
}

static bool reader_need_not_wait(const struct gpamap_reader *reader)
{
	return reader_is_behind(reader) || READ_ONCE(reader->news->closed);
}

/* The generation, if there is a new one. Those who share a file may be told the same twice. */
ssize_t gpamap_reader_read(struct gpamap_reader *reader, struct file *file,
			   char __user *buf, size_t len)
{
	struct gpamap_news *news = reader->news;
	u64 generation;
	bool closed;
	int rc;

	if (len < sizeof(generation))
		return -EINVAL;
	for (;;) {
		/* The last generation comes before the end. */
		closed = smp_load_acquire(&news->closed);
		generation = READ_ONCE(news->generation);
		if (generation != READ_ONCE(reader->seen))
			break;
		if (closed)
			return 0;
		if (file->f_flags & O_NONBLOCK)
			return -EAGAIN;
		/* Who shares the file may be told first: then it is waited again. */
		rc = wait_event_interruptible(news->wait, reader_need_not_wait(reader));
		if (rc)
			return rc;
	}
	if (copy_to_user(buf, &generation, sizeof(generation)))
		return -EFAULT;
	WRITE_ONCE(reader->seen, generation);
	return sizeof(generation);
}

__poll_t gpamap_reader_poll(struct gpamap_reader *reader, struct file *file,
			    struct poll_table_struct *table)
{
	__poll_t mask = 0;

	poll_wait(file, &reader->news->wait, table);
	if (reader_is_behind(reader))
		mask |= EPOLLIN | EPOLLRDNORM;
	if (READ_ONCE(reader->news->closed))
		mask |= EPOLLHUP;
	return mask;
}

static ssize_t watch_read(struct file *file, char __user *buf, size_t len, loff_t *pos)
{
	return gpamap_reader_read(file->private_data, file, buf, len);
}

static __poll_t watch_poll(struct file *file, struct poll_table_struct *table)
{
	return gpamap_reader_poll(file->private_data, file, table);
}

static int watch_release(struct inode *inode, struct file *file)
{
	struct gpamap_reader *reader = file->private_data;

	gpamap_news_put(reader->news);
	kfree(reader);
	return 0;
}

static const struct file_operations watch_fops = {
	.owner = THIS_MODULE,
	.read = watch_read,
	.poll = watch_poll,
	.release = watch_release,
	.llseek = noop_llseek,
};

/* A new reader: its descriptor, or an error. */
int gpamap_news_watch(struct gpamap_news *news)
{
	struct gpamap_reader *reader;
	int fd;

	reader = kzalloc(sizeof(*reader), GPAMAP_GFP);
	if (!reader)
		return -ENOMEM;
	reader->news = news;
	refcount_inc(&news->refs);
	fd = anon_inode_getfd("[gpamap-watch]", &watch_fops, reader, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		gpamap_news_put(news);
		kfree(reader);
	}
	return fd;
}
