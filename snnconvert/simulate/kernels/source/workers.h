// Threads that stay, for work that is shared between them item by item.
//
// Starting a thread for every layer costs as much as a small layer, and whoever starts one has to wait for its end even
// if the processor is busy elsewhere and the thread never gets to run. Here a thread that has not begun when the work
// is done is not waited for.
#pragma once

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>

namespace snn {

class Workers {
 public:
    using Loop = std::function<void(int64_t worker)>;

    // The process's own; never destroyed, since its threads may sleep in it until the process ends.
    static Workers& shared() {
        static std::once_flag once;
        std::call_once(once, [] {
            current() = new Workers;
            pthread_atfork(nullptr, nullptr, [] { current() = new Workers; });  // a child has none of the threads
        });
        return *current();
    }

    // Calls loop(0) here and loop(1), loop(2), ... on up to `helpers` other threads; returns when all calls have.
    // While the threads work for another caller, the loop runs here alone.
    void run(int64_t helpers, const Loop& loop) {
        std::unique_lock<std::mutex> mine(busy_, std::try_to_lock);
        if (!mine.owns_lock() || helpers <= 0) return loop(0);
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            start(helpers);
            loop_ = &loop;
            seats_ = std::min(helpers, started_);
            next_ = 1;
        }
        for (int64_t helper = 0; helper < std::min(helpers, started_); helper++) wake_.notify_one();
        loop(0);
        std::unique_lock<std::mutex> lock(mutex_);
        seats_ = 0;
        if (active_ > 0) {  // the last items are soon done: look for a while before going to sleep
            lock.unlock();
            for (int look = 0; look < kLooks && active_ > 0; look++) pause();
            lock.lock();
        }
        done_.wait(lock, [&] { return active_ == 0; });
    }

 private:
    static constexpr int kLooks = 2000;  // tens of microseconds

    std::mutex busy_, mutex_;
    std::condition_variable wake_, done_;
    const Loop* loop_ = nullptr;
    int64_t next_ = 1, started_ = 0;
    std::atomic<int64_t> seats_{0}, active_{0};

    static Workers*& current() {
        static Workers* workers = nullptr;
        return workers;
    }

    static void pause() {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }

    void start(int64_t helpers) {
        try {
            for (; started_ < helpers; started_++) std::thread([this] { serve(); }).detach();
        } catch (const std::exception&) {  // no more threads to be had: fewer do the same work
        }
    }

    void serve() {
        std::unique_lock<std::mutex> lock(mutex_);
        while (true) {
            if (seats_ == 0) {  // the next layer's work soon comes, and sleepers take long to wake up
                lock.unlock();
                for (int look = 0; look < kLooks && seats_ == 0; look++) pause();
                lock.lock();
            }
            wake_.wait(lock, [&] { return seats_ > 0; });
            seats_--;
            active_++;
            const int64_t worker = next_++;
            const Loop& loop = *loop_;
            lock.unlock();
            loop(worker);
            lock.lock();
            if (--active_ == 0) done_.notify_one();
        }
    }
};

}  // namespace snn
