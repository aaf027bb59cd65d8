# Files that ADD fetches.
umask 022
mkdir -p files tree/sub
echo 'from the net' > files/plain.txt
touch -d '2020-01-02T03:04:05Z' files/plain.txt
echo a > tree/a
echo b > tree/sub/b
touch -d '2020-01-02T03:04:05Z' tree/a tree/sub/b tree/sub tree
tar --create --owner=0 --group=0 --file=files/tree.tar tree
gzip --no-name --keep --force files/tree.tar
rm -r tree

# A context in an archive, whose files have owners of their own.
mkdir context
printf 'FROM busybox\nCOPY . /from-archive/\n' > context/Dockerfile
echo inside > context/file
echo ignored > context/left-out
echo left-out > context/.dockerignore
tar --create --owner=5 --group=6 --gzip --file=files/context.tar.gz --directory=context .
rm -r context
printf 'FROM busybox\nRUN echo from-a-url > /made\n' > files/remote.Dockerfile

# A repository with two commits, a tag and a branch, and one with the other as a submodule.
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.org
export GIT_AUTHOR_DATE='2021-01-01T00:00:00Z' GIT_COMMITTER_DATE='2021-01-01T00:00:00Z'
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
rm -rf work part.git repo.git nested.git
git init --quiet --bare --initial-branch=main part.git
git init --quiet --bare --initial-branch=main repo.git
git init --quiet --bare --initial-branch=main nested.git
for bare in part.git repo.git nested.git; do
    git -C $bare config uploadpack.allowAnySHA1InWant true
    git -C $bare config uploadpack.allowReachableSHA1InWant true
done
git init --quiet --initial-branch=main work/part
echo part > work/part/part.txt
git -C work/part add .
git -C work/part commit --quiet -m part
git -C work/part push --quiet "$PWD/part.git" main
git init --quiet --initial-branch=main work/repo
cd work/repo
mkdir -p sub/dir
echo first > README
echo 'FROM busybox
COPY README /from-git' > Dockerfile
echo below > sub/dir/file
ln -s README link
printf '#!/bin/sh\n' > run.sh
chmod 755 run.sh
git add .
git commit --quiet -m first
git tag v1
git checkout --quiet -b side
echo side > side.txt
git add .
git commit --quiet -m side
git checkout --quiet main
echo second > README
git add .
git commit --quiet -m second
git push --quiet --tags ../../repo.git main side
cd ../..
git init --quiet --initial-branch=main work/nested
cd work/nested
printf '[submodule "part"]\n\tpath = part\n\turl = ../part.git\n' > .gitmodules
git update-index --add --cacheinfo "160000,$(git -C ../part rev-parse HEAD),part"
printf 'FROM busybox\nRUN --mount=target=/c ls -A /c > /names\n' > Dockerfile
git add .gitmodules Dockerfile
git commit --quiet -m nested
git push --quiet ../../nested.git main
cd ../..
rm -rf work
