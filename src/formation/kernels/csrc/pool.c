/* One pool of worker threads per process.
 *
 * A job is published under `lock`; workers join while it has seats, take pieces from an atomic counter, and leave. Only one job runs
 * at a time: a second caller, or a task that calls again, does its work itself instead of waiting. */
#define _GNU_SOURCE
#include "pool.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined(__x86_64__) || defined(__i386__)
#include <xmmintrin.h>
#endif

/* Threads that wait look again for this long before they sleep: longer than a caller in Python takes from one kernel to the next, since
 * waking a thread takes as long. */
enum { MAX_WORKERS = 255, SPIN_NANOSECONDS = 30000, SPIN_CHECKS = 32 };

typedef struct {
  fk_task task;
  void *context;
  int64_t n, chunk;
  _Atomic int64_t next;
} job;

static struct {
  pthread_mutex_t lock;
  pthread_cond_t published, left;
  atomic_flag busy;          /* a caller owns the pool */
  _Atomic uint64_t sequence; /* counts published jobs */
  _Atomic int active;        /* workers inside the job */
  int seats, workers;        /* under lock: workers that may still join, workers that exist */
  job job;
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER, .published = PTHREAD_COND_INITIALIZER, .left = PTHREAD_COND_INITIALIZER,
          .busy = ATOMIC_FLAG_INIT};

static pthread_once_t prepared = PTHREAD_ONCE_INIT;
static pthread_key_t scratch_key;
static int scratch_ready;

/* ---- floating-point mode ---- */

unsigned fk_mode_enter(void) {
#if defined(__x86_64__) || defined(__i386__)
  unsigned saved = _mm_getcsr();
  _mm_setcsr(0x1f80);
  return saved;
#elif defined(__aarch64__)
  uint64_t saved;
  __asm__ volatile("mrs %0, fpcr" : "=r"(saved));
  __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)0) : "memory");
  return (unsigned)saved;
#else
  return 0;
#endif
}

void fk_mode_leave(unsigned saved) {
#if defined(__x86_64__) || defined(__i386__)
  _mm_setcsr(saved);
#elif defined(__aarch64__)
  __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)saved) : "memory");
#else
  (void)saved;
#endif
}

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

/* ---- preparation, once per process and again in a forked child ---- */

static void reset_in_child(void) {
  pthread_mutex_init(&pool.lock, NULL);
  pthread_cond_init(&pool.published, NULL);
  pthread_cond_init(&pool.left, NULL);
  atomic_flag_clear(&pool.busy);
  atomic_store(&pool.active, 0);
  pool.seats = 0;
  pool.workers = 0; /* threads do not survive a fork */
}

static void free_scratch(void *slots) {
  for (int i = 0; i < FK_SCRATCH_SLOTS; i++) free(((void **)slots)[2 * i]);
  free(slots);
}

static void prepare(void) {
  pthread_atfork(NULL, NULL, reset_in_child);
  scratch_ready = pthread_key_create(&scratch_key, free_scratch) == 0;
}

/* ---- scratch: per thread, [slot] -> (pointer, bytes) ---- */

void *fk_scratch(int slot, size_t bytes) {
  pthread_once(&prepared, prepare);
  if (!scratch_ready) return NULL;
  void **slots = pthread_getspecific(scratch_key);
  if (!slots) {
    slots = calloc(2 * FK_SCRATCH_SLOTS, sizeof *slots);
    if (!slots) return NULL;
    if (pthread_setspecific(scratch_key, slots)) return free(slots), NULL;
  }
  void **memory = &slots[2 * slot], **size = &slots[2 * slot + 1];
  if ((uintptr_t)*size < bytes) {
    free(*memory);
    *memory = *size = NULL;
    if (posix_memalign(memory, 64, bytes)) return *memory = NULL;
    *size = (void *)(uintptr_t)bytes;
  }
  return *memory;
}

/* ---- jobs ---- */

static void work(job *j) {
  for (;;) {
    int64_t begin = atomic_fetch_add_explicit(&j->next, j->chunk, memory_order_relaxed);
    if (begin >= j->n) return;
    int64_t end = j->n - begin < j->chunk ? j->n : begin + j->chunk;
    j->task(j->context, begin, end);
  }
}

static int64_t nanoseconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* True as soon as *value differs from `old`; false when the short spin has passed. */
static int changes_soon(_Atomic uint64_t *value, uint64_t old) {
  for (int64_t until = nanoseconds() + SPIN_NANOSECONDS; nanoseconds() < until;)
    for (int i = 0; i < SPIN_CHECKS; i++, relax())
      if (atomic_load_explicit(value, memory_order_acquire) != old) return 1;
  return 0;
}

static int empties_soon(_Atomic int *count) {
  for (int64_t until = nanoseconds() + SPIN_NANOSECONDS; nanoseconds() < until;)
    for (int i = 0; i < SPIN_CHECKS; i++, relax())
      if (atomic_load_explicit(count, memory_order_acquire) == 0) return 1;
  return 0;
}

static void *worker(void *unused) {
  (void)unused;
  fk_mode_enter();
  for (uint64_t seen = 0;;) {
    changes_soon(&pool.sequence, seen);
    pthread_mutex_lock(&pool.lock);
    while (atomic_load(&pool.sequence) == seen) pthread_cond_wait(&pool.published, &pool.lock);
    seen = atomic_load(&pool.sequence);
    int joins = pool.seats > 0;
    if (joins) pool.seats--, atomic_fetch_add(&pool.active, 1);
    pthread_mutex_unlock(&pool.lock);
    if (!joins) continue;
    work(&pool.job);
    pthread_mutex_lock(&pool.lock);
    if (atomic_fetch_sub(&pool.active, 1) == 1) pthread_cond_signal(&pool.left);
    pthread_mutex_unlock(&pool.lock);
  }
  return NULL;
}

/* Under lock. Workers take no signals: those belong to the program's own threads. */
static void hire(int wanted) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  for (pthread_t thread; pool.workers < wanted; pool.workers++) {
    if (pthread_create(&thread, NULL, worker, NULL)) break;
    pthread_detach(thread);
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void publish(int64_t n, int64_t chunk, int helpers, fk_task task, void *context) {
  pthread_mutex_lock(&pool.lock);
  if (pool.workers < helpers) hire(helpers);
  pool.job.task = task, pool.job.context = context, pool.job.n = n, pool.job.chunk = chunk;
  atomic_store(&pool.job.next, 0);
  pool.seats = helpers;
  atomic_fetch_add(&pool.sequence, 1);
  if (helpers == 1) pthread_cond_signal(&pool.published);
  else pthread_cond_broadcast(&pool.published);
  pthread_mutex_unlock(&pool.lock);
}

static void retire(void) {
  pthread_mutex_lock(&pool.lock);
  pool.seats = 0; /* a worker that wakes late finds nothing to join */
  pthread_mutex_unlock(&pool.lock);
  if (empties_soon(&pool.active)) return;
  pthread_mutex_lock(&pool.lock);
  while (atomic_load(&pool.active)) pthread_cond_wait(&pool.left, &pool.lock);
  pthread_mutex_unlock(&pool.lock);
}

void fk_parallel(int64_t n, int64_t chunk, int threads, fk_task task, void *context) {
  if (n <= 0) return;
  if (chunk < 1) chunk = 1;
  int64_t pieces = (n + chunk - 1) / chunk;
  int helpers = (int)(threads < pieces ? threads : pieces) - 1;
  if (helpers > MAX_WORKERS) helpers = MAX_WORKERS;
  pthread_once(&prepared, prepare);
  if (helpers < 1 || atomic_flag_test_and_set(&pool.busy)) {
    task(context, 0, n);
    return;
  }
  publish(n, chunk, helpers, task, context);
  work(&pool.job);
  retire();
  atomic_flag_clear(&pool.busy);
}
