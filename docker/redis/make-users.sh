#!/bin/sh
# Gives every user of users.acl a password: FOLDER/USER/redis-password is the password of USER,
# FOLDER/redis/users.acl the ACL file for Redis, which has only their hashes. What is there stays:
# running it again changes nothing; remove a user's file to give that user a new one.
#
#   docker/redis/make-users.sh docker/redis/users.acl FOLDER
set -eu
template=$1
folder=$2
mkdir -p "$folder/redis"
sed -n 's/^user \([a-z]*\) .*#\([A-Z]*_PASSWORD_SHA256\).*/\1 \2/p' "$template" >"$folder/redis/list"
cp "$template" "$folder/redis/new"
while read -r user placeholder; do
  file=$folder/$user/redis-password
  mkdir -p "$folder/$user"
  [ -s "$file" ] || head -c 32 /dev/urandom | sha256sum | cut -c 1-48 >"$file"
  hash=$(tr -d '\n' <"$file" | sha256sum | cut -c 1-64)
  sed -i "s/#$placeholder/#$hash/" "$folder/redis/new"
done <"$folder/redis/list"
mv "$folder/redis/new" "$folder/redis/users.acl"
rm "$folder/redis/list"
