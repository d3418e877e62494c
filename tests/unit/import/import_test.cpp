// SPDX-License-Identifier: Apache-2.0
// What `sluice import` makes of files of keepalived and ipvsadm, held to files beside this one:
// NAME is read, NAME.yaml has to come out, and the notes of NAME.notes.
#include "tools/import/import.hpp"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

#include "controlplane/config/config.hpp"
#include "controlplane/model/text.hpp"
#include "dataplane/abi/address_text.hpp"
#include "dataplane/abi/node_file.hpp"

namespace sluice::importing {
namespace {

std::string read(const std::string& name) {
  const auto text = read_text_file(SLUICE_SOURCE_ROOT "/tests/unit/import/" + name);
  return text ? *text : text.error().to_string();
}

void hold_to_files(const std::string& name, const result& got) {
  ASSERT_TRUE(got) << got.error().to_string();
  const std::string yaml = model::to_yaml(got->state);
  EXPECT_EQ(yaml, read(name + ".yaml")) << "wanted is what is in the file";
  std::string notes;
  for (const config_error& n : got->notes) notes += n.to_string() + "\n";
  EXPECT_EQ(notes, read(name + ".notes")) << "wanted is what is in the file";
  const auto again = config::parse_services(yaml, "out.yaml", {});
  ASSERT_TRUE(again) << to_string(again.error());
  EXPECT_EQ(*again, got->state);
}

TEST(import, keepalived) {
  hold_to_files("edge.keepalived.conf",
                from_keepalived(read("edge.keepalived.conf"), "edge.keepalived.conf"));
}

TEST(import, ipvsadm) {
  hold_to_files("plain.ipvsadm", from_ipvsadm(read("plain.ipvsadm"), "plain.ipvsadm"));
}

TEST(import, checks_of_keepalived_by_datagrams_and_programs) {
  const auto got = from_keepalived(
      "virtual_server 198.51.100.53 53 {\n lvs_method NAT\n protocol UDP\n"
      " real_server 10.0.1.11 53 {\n  DNS_CHECK {\n   type AAAA\n   name www.example.net.\n  }\n"
      " }\n}\n"
      "virtual_server 198.51.100.54 53 {\n lvs_method NAT\n protocol UDP\n"
      " real_server 10.0.1.11 53 {\n  UDP_CHECK {\n   payload \"0a 0B\"\n   require_reply\n  }\n "
      "}\n}\n"
      "virtual_server 198.51.100.55 53 {\n lvs_method NAT\n protocol UDP\n"
      " real_server 10.0.1.11 53 {\n  MISC_CHECK {\n   misc_path \"/usr/bin/look -v 7\"\n"
      "   misc_timeout 3\n   misc_dynamic\n  }\n }\n}\n"
      "virtual_server 198.51.100.56 53 {\n lvs_method NAT\n protocol UDP\n"
      " real_server 10.0.1.11 53 {\n  UDP_CHECK {\n   payload 0a0\n  }\n }\n}\n"
      "virtual_server 198.51.100.57 53 {\n lvs_method NAT\n protocol UDP\n"
      " real_server 10.0.1.11 53 {\n  MISC_CHECK {\n  }\n }\n}\n",
      "k");
  ASSERT_TRUE(got) << got.error().to_string();
  ASSERT_EQ(got->state.services.size(), 5u);
  const auto health = [&](std::size_t i) { return got->state.services[i].health; };
  EXPECT_EQ(health(0).kind, model::health_kind::dns);
  EXPECT_EQ(health(0).name, "www.example.net");
  EXPECT_EQ(health(0).record, 28);
  EXPECT_EQ(health(1).kind, model::health_kind::udp);
  EXPECT_EQ(health(1).send, "\x0a\x0b");
  EXPECT_EQ(health(1).answer, model::health_answer::any);
  EXPECT_EQ(health(2).kind, model::health_kind::exec);
  EXPECT_EQ(health(2).command, (std::vector<std::string>{"/etc/sluice/checks/look", "-v", "7"}));
  EXPECT_TRUE(health(2).weights);
  EXPECT_EQ(health(2).timeout, std::chrono::seconds{3});
  EXPECT_EQ(health(3).answer, model::health_answer::none);
  EXPECT_EQ(health(3).send, "");
  EXPECT_EQ(health(4).kind, model::health_kind::none);
  std::string notes;
  for (const auto& note : got->notes) notes += note.to_string() + "\n";
  for (const char* wanted :
       {"copy the program to /etc/sluice/checks/look", "is not hexadecimal", "names no program"})
    EXPECT_NE(notes.find(wanted), std::string::npos) << wanted << " is not in:\n" << notes;
}

TEST(import, checks_of_keepalived_by_https_and_ping) {
  const auto got = from_keepalived(
      "virtual_server 198.51.100.10 443 {\n lvs_method NAT\n delay_loop 5\n"
      " real_server 10.0.1.11 443 {\n  SSL_GET {\n   virtualhost www.example.net\n"
      "   url {\n    path /h\n    status_code 200\n   }\n  }\n }\n}\n"
      "virtual_server 198.51.100.11 443 {\n lvs_method NAT\n"
      " real_server 10.0.1.11 443 {\n  PING_CHECK {\n  }\n }\n}\n",
      "k");
  ASSERT_TRUE(got) << got.error().to_string();
  ASSERT_EQ(got->state.services.size(), 2u);
  const model::health_check& https = got->state.services[0].health;
  EXPECT_EQ(https.kind, model::health_kind::https);
  EXPECT_FALSE(https.verify) << "keepalived does not look at certificates";
  EXPECT_EQ(https.path, "/h");
  EXPECT_EQ(https.host, "www.example.net");
  EXPECT_EQ(https.expect_last, 200);
  EXPECT_EQ(got->state.services[1].health.kind, model::health_kind::icmp);
  for (const auto& note : got->notes)
    EXPECT_EQ(note.to_string().find("_GET"), std::string::npos) << note.to_string();
  const std::string yaml = model::to_yaml(got->state);
  const auto again = config::parse_services(yaml, "out.yaml", {});
  ASSERT_TRUE(again) << to_string(again.error());
  EXPECT_EQ(*again, got->state);
}

std::string error_of(const result& r) {
  return r ? std::string{"none"} : r.error().to_string();
}

TEST(import, what_cannot_be_understood_is_refused_with_its_line) {
  EXPECT_EQ(error_of(from_keepalived("virtual_server 198.51.100.10 80 {\n", "k")),
            "k:1: ends within a block: a } is missing");
  EXPECT_EQ(error_of(from_keepalived("a\n}\n", "k")), "k:2: a } closes no block");
  EXPECT_EQ(error_of(from_keepalived("{\n", "k")), "k:1: a { follows no word");
  EXPECT_EQ(error_of(from_keepalived("", "k")),
            "k: there is no service in it that could be carried over");
  EXPECT_EQ(error_of(from_ipvsadm("# nothing\n", "i")),
            "i: there is no service in it that could be carried over");
  std::string deep = "virtual_server 198.51.100.10 80 ";
  for (int i = 0; i < 100; ++i) deep += "{ a ";
  EXPECT_EQ(error_of(from_keepalived(deep, "k")), "k:1: blocks are too deep");
  // Definitions that double what they hold, line by line.
  std::string bomb = "$A=" + std::string(60000, 'x') + "\n";
  for (int i = 0; i < 400; ++i) bomb += "a $A\n";
  EXPECT_EQ(error_of(from_keepalived(bomb, "k")).find("k:"), 0u);
}

TEST(import, what_a_services_yaml_cannot_hold_is_left_out) {
  const auto with_program = [](const std::string& program) {
    return "! caf\xe9: in a comment nobody minds\nvirtual_server 198.51.100.10 80 {\n lb_kind DR\n "
           "real_server 10.0.1.11 80 {\n MISC_CHECK {\n misc_path \"" +
           program + "\"\n }\n }\n}\n";
  };
  const auto good = from_keepalived(with_program("/bin/caf\u00e9"), "k");
  ASSERT_TRUE(good) << good.error().to_string();
  EXPECT_NE(model::to_yaml(good->state).find("/checks/caf\u00e9"), std::string::npos);
  const auto notes = [](const std::string& text) {
    const auto got = from_keepalived(text, "k");
    EXPECT_TRUE(got) << got.error().to_string();
    std::vector<std::string> out;
    for (const config_error& n : got->notes) out.push_back(n.to_string());
    EXPECT_TRUE(config::parse_services(model::to_yaml(got->state), "out.yaml", {}));
    return out;
  };
  const auto unchecked = [](const std::string& why) {
    return std::vector<std::string>{
        "k:5: virtual_server 198.51.100.10 80: real_server 10.0.1.11 80: MISC_CHECK: names no "
        "program, so its backends are not checked",
        "k:6: a word: not carried over: " + why};
  };
  EXPECT_EQ(notes(with_program("/bin/caf\xe9")),
            unchecked("is not valid UTF-8; iconv(1) converts a file"));
  EXPECT_EQ(notes(with_program("/bin/\x7f")), unchecked("holds a control character"));
  // What is no part of a service, and a file whose name is none.
  const auto others =
      notes("global_defs {\n router_id \xe9\n}\ninclude \xff.conf\n" + with_program("/bin/a"));
  ASSERT_GE(others.size(), 3u);
  EXPECT_EQ(others[1],
            "k:2: a word: not carried over: is not valid UTF-8; iconv(1) converts a file");
  EXPECT_EQ(others[2], "k:4: include: not carried over: other files are not read");
  const auto some = from_ipvsadm(
      "-A -t 198.51.100.10:80 -s rr\n-a -t 198.51.100.10:80 -r 10.0.1.11:80 -g\n-A -t \xff\n", "i");
  ASSERT_TRUE(some) << some.error().to_string();
  ASSERT_EQ(some->notes.size(), 1u);
  EXPECT_EQ(some->notes[0].to_string(),
            "i:3: not carried over: is not valid UTF-8; iconv(1) converts a file");
}

// What a virtual server is here: one backend, no check.
std::string server(const std::string& address, const std::string& more = {}) {
  return "virtual_server " + address + " 80 {\n lb_kind DR\n real_server 10.0.1.11 80 {\n }\n" +
         more + "}\n";
}

class included : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "sluice-import-XXXXXX").string();
    ASSERT_TRUE(mkdtemp(name.data()));
    root_ = name + "/";
  }
  void TearDown() override { std::filesystem::remove_all(root_); }
  void write(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories(std::filesystem::path{root_ + name}.parent_path());
    std::ofstream{root_ + name} << text;
  }
  // load() reads main.conf; the directory's name is taken out of what is told.
  [[nodiscard]] result load() const {
    auto out =
        from_keepalived(*read_text_file(root_ + "main.conf"), root_ + "main.conf", local_files);
    const auto shorten = [this](std::string& s) {
      for (auto at = s.find(root_); at != std::string::npos; at = s.find(root_))
        s.erase(at, root_.size());
    };
    if (out) {
      for (auto& n : out->notes) {
        shorten(n.file);
        shorten(n.message);
      }
    } else {
      shorten(out.error().file);
      shorten(out.error().message);
    }
    return out;
  }

  std::string root_;
};

TEST_F(included, files_stand_where_they_are_named) {
  write("main.conf", "$NET=198.51.100\n! first\ninclude conf.d/*.conf  # all of them\n" +
                         server("198.51.100.1", " include parts/{weight,none}.conf\n"));
  write("conf.d/b.conf", server("$NET.3"));
  write("conf.d/a.conf", "\ninclude \"deeper/one.conf\"\n" + server("$NET.2"));
  write("conf.d/deeper/one.conf", server("198.51.100.4", " ha_suspend\n") + server("198.51.100.1"));
  write("conf.d/not.txt", "}\n");
  write("parts/weight.conf", "  delay_loop x\n  real_server 10.0.1.12 80 {\n  weight 7\n }\n");
  const auto got = load();
  ASSERT_TRUE(got) << got.error().to_string();
  std::string addresses;
  for (const auto& s : got->state.services) addresses += format_ip(s.address) + " ";
  EXPECT_EQ(addresses, "198.51.100.1 198.51.100.2 198.51.100.3 198.51.100.4 ");
  std::string notes;
  for (const auto& n : got->notes) notes += n.to_string() + "\n";
  EXPECT_NE(notes.find("conf.d/deeper/one.conf:5: virtual_server 198.51.100.4 80: ha_suspend: not "
                       "carried over: "),
            std::string::npos)
      << notes;
  EXPECT_NE(notes.find("parts/weight.conf:1: virtual_server 198.51.100.1 80: delay_loop x: is no "
                       "time"),
            std::string::npos)
      << notes;
  EXPECT_NE(notes.find("main.conf:4: virtual_server 198.51.100.1 80: is the same as "
                       "conf.d/deeper/one.conf:7; left out"),
            std::string::npos)
      << notes;
}

TEST_F(included, what_is_not_there_is_told) {
  write("main.conf", server("198.51.100.1") +
                         "include /no-such/*.conf\nincludea gone.conf\n"
                         "include conf.d\n");
  std::filesystem::create_directories(root_ + "conf.d");
  const auto got = load();
  ASSERT_TRUE(got) << got.error().to_string();
  ASSERT_EQ(got->notes.size(), 3u);
  EXPECT_EQ(got->notes[0].to_string(),
            "main.conf:6: include /no-such/*.conf: not carried over: there is no such file");
  EXPECT_EQ(got->notes[1].to_string(),
            "main.conf:7: include gone.conf: not carried over: there is no such file");
  EXPECT_EQ(got->notes[2].line, 8u);
  const auto alone = from_keepalived(server("198.51.100.1") + "include *\n", "k");
  EXPECT_EQ(alone->notes.at(0).to_string(),
            "k:6: include *: not carried over: other files are not read");
}

TEST_F(included, files_that_are_wrong_are_named_with_their_lines) {
  const auto error = [this](const std::string& a) {
    write("main.conf", server("198.51.100.1") + "include conf.d/a.conf\n");
    write("conf.d/a.conf", a);
    return error_of(load());
  };
  EXPECT_EQ(error("\nx {\n"), "conf.d/a.conf:2: ends within a block: a } is missing");
  EXPECT_EQ(error("\n}\n"), "conf.d/a.conf:2: a } closes no block");
  EXPECT_EQ(error("\n\ninclude a.*\n"),
            "conf.d/a.conf:3: conf.d/a.conf includes itself, by this line at last");
  EXPECT_EQ(error("include ../main.conf\n"),
            "conf.d/../main.conf:6: conf.d/../conf.d/a.conf includes itself, by this line at last");
  for (int i = 0; i < 30; ++i)
    write("conf.d/" + std::to_string(i), "include " + std::to_string(i + 1) + "\n");
  EXPECT_EQ(error("include 0\n"), "conf.d/14:1: files include one another too deeply");
  // A block of the outer file is not closed by an inner one.
  write("main.conf", "virtual_server 198.51.100.1 80 {\n include conf.d/a.conf\n");
  write("conf.d/a.conf", "lb_kind DR\n}\n");
  EXPECT_EQ(error_of(load()), "conf.d/a.conf:2: a } closes no block");
}

TEST_F(included, no_more_than_can_be_read) {
  write("main.conf", "include many/*\n");
  for (int i = 0; i < 1001; ++i) write("many/" + std::to_string(i), "");
  EXPECT_EQ(error_of(load()), "main.conf:1: more than 1000 files are included");
}

TEST(import, what_a_state_refuses_is_left_out_with_a_note) {
  const auto got = from_ipvsadm(
      "-A -t 198.51.100.10:80 -s rr\n-a -t 198.51.100.10:80 -r 198.51.100.11:80 -g\n"
      "-A -t 198.51.100.11:80 -s rr\n-A -t 127.0.0.1:80 -s rr\n",
      "i");
  ASSERT_TRUE(got);
  EXPECT_EQ(got->state.services.size(), 2u);
  ASSERT_EQ(got->notes.size(), 2u);
  EXPECT_EQ(got->notes[0].line, 2u);
  EXPECT_NE(got->notes[0].message.find("this backend is left out"), std::string::npos);
  EXPECT_EQ(got->notes[1].line, 4u);
  EXPECT_NE(got->notes[1].message.find("the service is left out"), std::string::npos);
}

TEST(import, a_host_that_is_none_is_left_out) {
  const auto got = from_keepalived(
      "virtual_server 198.51.100.10 80 {\n lb_kind DR\n virtualhost \"a b\"\n real_server "
      "10.0.1.11 80 {\n HTTP_GET {\n }\n }\n}\n",
      "k");
  ASSERT_TRUE(got);
  EXPECT_TRUE(config::parse_services(model::to_yaml(got->state), "out.yaml", {}));
  ASSERT_EQ(got->notes.size(), 1u);
  EXPECT_NE(got->notes[0].message.find("no host name"), std::string::npos);
}

}  // namespace
}  // namespace sluice::importing
