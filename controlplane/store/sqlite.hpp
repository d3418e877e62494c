// SPDX-License-Identifier: Apache-2.0
// The little of SQLite's C interface that the store needs, with owners. One thread.
// Functions return false or nothing on failure; database::code() and message() say why.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace sluice::store {

class database {
 public:
  database() = default;
  database(const database&) = delete;
  database& operator=(const database&) = delete;
  ~database() { sqlite3_close_v2(handle_); }

  bool open(const std::string& path) {
    const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE;
    if (sqlite3_open_v2(path.c_str(), &handle_, flags, nullptr) != SQLITE_OK) return false;
    // A control plane that is just ending may still hold the file.
    return sqlite3_busy_timeout(handle_, 1000) == SQLITE_OK;
  }
  bool run(const char* sql) const {
    return sqlite3_exec(handle_, sql, nullptr, nullptr, nullptr) == SQLITE_OK;
  }
  [[nodiscard]] std::optional<std::int64_t> number(const char* sql) const;
  [[nodiscard]] std::optional<std::string> word(const char* sql) const;

  [[nodiscard]] int code() const { return handle_ ? sqlite3_errcode(handle_) : SQLITE_NOMEM; }
  [[nodiscard]] std::string message() const {
    return handle_ ? sqlite3_errmsg(handle_) : "out of memory";
  }
  [[nodiscard]] sqlite3* handle() const noexcept { return handle_; }

 private:
  sqlite3* handle_{nullptr};
};

class statement {
 public:
  statement(const database& db, const char* sql) {
    sqlite3_prepare_v2(db.handle(), sql, -1, &handle_, nullptr);
  }
  statement(const statement&) = delete;
  statement& operator=(const statement&) = delete;
  ~statement() { sqlite3_finalize(handle_); }

  [[nodiscard]] bool ok() const noexcept { return handle_ != nullptr; }
  // bind() numbers parameters from 1. Text must live until the statement has run.
  void bind(int at, std::int64_t v) { sqlite3_bind_int64(handle_, at, v); }
  void bind(int at, std::string_view v) {
    // An empty view may hold no pointer, which SQLite would take for NULL.
    sqlite3_bind_text64(handle_, at, v.empty() ? "" : v.data(), v.size(), nullptr, SQLITE_UTF8);
  }
  void bind_blob(int at, std::string_view v) {
    sqlite3_bind_blob64(handle_, at, v.empty() ? "" : v.data(), v.size(), nullptr);
  }
  void bind_null(int at) { sqlite3_bind_null(handle_, at); }
  int step() { return sqlite3_step(handle_); }
  void reset() { sqlite3_reset(handle_); }

  // Columns count from 0.
  [[nodiscard]] std::int64_t integer(int column) const {
    return sqlite3_column_int64(handle_, column);
  }
  [[nodiscard]] bool is_null(int column) const {
    return sqlite3_column_type(handle_, column) == SQLITE_NULL;
  }
  // text() is for blobs, too.
  [[nodiscard]] std::string text(int column) const {
    const void* data = sqlite3_column_blob(handle_, column);
    const int size = sqlite3_column_bytes(handle_, column);
    return data ? std::string{static_cast<const char*>(data), static_cast<std::size_t>(size)}
                : std::string{};
  }

 private:
  sqlite3_stmt* handle_{nullptr};
};

inline std::optional<std::int64_t> database::number(const char* sql) const {
  statement s{*this, sql};
  if (!s.ok() || s.step() != SQLITE_ROW) return std::nullopt;
  return s.integer(0);
}
inline std::optional<std::string> database::word(const char* sql) const {
  statement s{*this, sql};
  if (!s.ok() || s.step() != SQLITE_ROW) return std::nullopt;
  return s.text(0);
}

// transaction rolls back unless commit() has succeeded.
class transaction {
 public:
  explicit transaction(const database& db) : db_{db}, open_{db.run("BEGIN IMMEDIATE")} {}
  transaction(const transaction&) = delete;
  transaction& operator=(const transaction&) = delete;
  ~transaction() {
    if (open_) db_.run("ROLLBACK");
  }
  [[nodiscard]] bool ok() const noexcept { return open_; }
  bool commit() {
    if (!db_.run("COMMIT")) return false;
    open_ = false;
    return true;
  }

 private:
  const database& db_;
  bool open_;
};

}  // namespace sluice::store
